"""SoundFont files: presets as flat lists of regions, read from .sf2 and .sf3 and written to either.

A region is one sample with the keys and velocities that play it and the sum of all generators and modulators that apply
to it: those of the instrument's zone and global zone plus those of the preset's (SoundFont Technical Specification
2.04, sections 7–9). Of a file only what a caller asks for is read: its samples stay on disk until then.

An .sf3 file is an .sf2 file whose samples are Ogg Vorbis streams; their loop points count from the sample's start.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from v2m.core.errors import UsageError

DRUM_BANK = 128
Range = tuple[int, int]
PresetKey = tuple[int, int]  # bank, program
ModulatorKey = tuple[int, int, int, int]  # source, destination generator, amount source, transform

# Generators, by their numbers in the specification
KEYS, VELOCITIES, SAMPLE, INSTRUMENT = 43, 44, 53, 41
ATTENUATION, SAMPLE_MODES, PAN, EXCLUSIVE_CLASS, ROOT_KEY = 48, 54, 17, 57, 58
START_OFFSET, START_OFFSET_COARSE = 0, 4
_OF_INSTRUMENTS_ONLY = {0, 1, 2, 3, 4, 12, 45, 46, 47, 50, 54, 57, 58}
DEFAULTS = {
    8: 13500, 21: -12000, 23: -12000, 25: -12000, 26: -12000, 27: -12000, 28: -12000, 30: -12000, 33: -12000,
    34: -12000, 35: -12000, 36: -12000, 38: -12000, 46: -1, 47: -1, 56: 100, 58: -1,
}  # fmt: skip

# Creative's hardware, for which banks are balanced, attenuates by this share of the generator's amount.
ATTENUATION_SCALE = 0.4
VELOCITY_TO_ATTENUATION: ModulatorKey = (0x0502, ATTENUATION, 0, 0)
_DEFAULT_MODULATORS: dict[ModulatorKey, int] = {
    VELOCITY_TO_ATTENUATION: 960
}  # the one among the specification's that notes depend on
_VORBIS_FLAG = 0x10
_PADDING = 46  # zeros after each sample, which the specification asks for

_ZONE = np.dtype([("generator", "<u2"), ("modulator", "<u2")])
_GENERATOR = np.dtype([("operator", "<u2"), ("amount", "<i2")])
_MODULATOR = np.dtype(
    [("source", "<u2"), ("destination", "<u2"), ("amount", "<i2"), ("amount_source", "<u2"), ("transform", "<u2")]
)
_RECORDS = {
    b"phdr": np.dtype(
        [("name", "S20"), ("program", "<u2"), ("bank", "<u2"), ("zone", "<u2"), ("reserved", "<u4", (3,))]
    ),
    b"pbag": _ZONE,
    b"pmod": _MODULATOR,
    b"pgen": _GENERATOR,
    b"inst": np.dtype([("name", "S20"), ("zone", "<u2")]),
    b"ibag": _ZONE,
    b"imod": _MODULATOR,
    b"igen": _GENERATOR,
    b"shdr": np.dtype(
        {
            "names": ["name", "start", "end", "loop_start", "loop_end", "rate", "root", "correction", "link", "type"],
            "formats": ["S20", "<u4", "<u4", "<u4", "<u4", "<u4", "u1", "i1", "<u2", "<u2"],
        }
    ),
}


@dataclass(frozen=True)
class Region:
    """One sample of a preset.

    `layer`: preset zone, instrument and pan, equal for the samples along the keyboard.
    """

    sample: int
    keys: Range = (0, 127)
    velocities: Range = (0, 127)
    generators: Mapping[int, int] = field(default_factory=dict)
    modulators: Mapping[ModulatorKey, int] = field(default_factory=dict)
    layer: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Sample:
    """A sample: 16-bit PCM, or an Ogg Vorbis stream. Loop points count from its first value."""

    name: str
    data: NDArray[np.int16] | bytes
    loop: Range
    rate: int
    root: int
    correction: int


@dataclass(frozen=True)
class _Zone:
    generators: dict[int, int]
    modulators: dict[ModulatorKey, int]


class SoundFont:
    """An open SoundFont file; UsageError where it is none."""

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._read_tables()
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise UsageError(f"{path} is not a SoundFont that can be read (.sf2, .sf3)") from error

    def _read_tables(self) -> None:
        if self._file[:4] != b"RIFF" or self._file[8:12] != b"sfbk":
            raise ValueError("no sfbk")
        chunks: dict[bytes, Range] = {}
        for name, start, end in self._chunks(12, len(self._file)):
            if name == b"LIST":
                chunks |= {inner: (first, last) for inner, first, last in self._chunks(start + 4, end)}
        self._tables = {}
        for name, dtype in _RECORDS.items():
            start, end = chunks[name]
            count = (end - start) // dtype.itemsize
            self._tables[name] = np.frombuffer(self._file[start : start + count * dtype.itemsize], dtype)
        self._sample_start, self._sample_end = chunks[b"smpl"]
        self._samples: dict[int, Sample] = {}
        headers = self._tables[b"phdr"][:-1]
        self.presets: dict[PresetKey, int] = {
            (int(header["bank"]), int(header["program"])): index for index, header in enumerate(headers)
        }
        if not self.presets:
            raise ValueError("no presets")

    def _chunks(self, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield (name, start, end) of the chunks in a range of bytes."""
        while start + 8 <= end:
            size = int.from_bytes(self._file[start + 4 : start + 8], "little")
            if start + 8 + size > len(self._file):
                raise ValueError("truncated")
            yield self._file[start : start + 4], start + 8, start + 8 + size
            start += 8 + size
            if self._file[start : start + 4] not in (b"LIST", *_RECORDS):  # some .sf3 files lack the pad byte
                start += size % 2

    def find_preset(self, bank: int, program: int) -> PresetKey:
        """Return the preset, or the nearest in the file: a kit for a kit, of its family for a program."""
        drums = {key for key in self.presets if key[0] == DRUM_BANK}
        candidates = (drums if bank == DRUM_BANK else set(self.presets) - drums) or set(self.presets)

        def distance(key: PresetKey) -> tuple[int, ...]:
            if bank == DRUM_BANK:
                return int(key[1] != program), key[1], key[0]
            return int(key[1] // 8 != program // 8), abs(key[1] - program), int(key[0] != bank), *key

        return min(candidates, key=distance)

    def preset_name(self, key: PresetKey) -> str:
        return self._tables[b"phdr"]["name"][self.presets[key]].decode("latin-1")

    def regions(self, key: PresetKey) -> list[Region]:
        """Return the regions of preset `key`."""
        regions: list[Region] = []
        index = self.presets[key]
        for number, outer in enumerate(self._zones(b"phdr", b"p", index, INSTRUMENT)):
            for inner in self._zones(b"inst", b"i", outer.generators[INSTRUMENT], SAMPLE):
                region = _combine(outer, inner, number)
                if region is not None:
                    regions.append(region)
        return regions

    def _zones(self, headers: bytes, prefix: bytes, index: int, link: int) -> list[_Zone]:
        """Return the zones with generator `link` of a preset or instrument, its global zone's values included."""
        bags, gens, mods = (prefix + name for name in (b"bag", b"gen", b"mod"))
        first, last = (int(self._tables[headers]["zone"][i]) for i in (index, index + 1))
        shared, zones = _Zone({}, {}), []
        for number in range(first, last):
            bag, following = self._tables[bags][number], self._tables[bags][number + 1]
            generators = self._tables[gens][bag["generator"] : following["generator"]].tolist()
            modulators = self._tables[mods][bag["modulator"] : following["modulator"]].tolist()
            zone = _Zone(
                shared.generators | dict(generators),
                shared.modulators | {(m[0], m[1], m[3], m[4]): m[2] for m in modulators},
            )
            if link in zone.generators:
                zones.append(zone)
            elif number == first:
                shared = zone
        return zones

    def sample(self, index: int) -> Sample:
        """Return sample `index` as PCM; decoded once."""
        if index not in self._samples:
            header = self._tables[b"shdr"][index]
            start, end, first, last = (int(header[name]) for name in ("start", "end", "loop_start", "loop_end"))
            if int(header["type"]) & _VORBIS_FLAG:
                import soundfile

                stream = self._file[self._sample_start + start : self._sample_start + end]
                data = np.asarray(soundfile.read(BytesIO(stream), dtype="int16")[0], np.int16)
            else:
                end = max(start, min(end, (self._sample_end - self._sample_start) // 2))
                data = np.frombuffer(
                    self._file[self._sample_start + 2 * start : self._sample_start + 2 * end], np.dtype("<i2")
                )
                first, last = first - start, last - start
            name = header["name"].decode("latin-1")
            numbers = (int(header[key]) for key in ("rate", "root", "correction"))
            self._samples[index] = Sample(name, data, (first, last), *numbers)
        return self._samples[index]


def _combine(outer: _Zone, inner: _Zone, number: int) -> Region | None:
    """Return the region of an instrument's zone within a preset's; None where their ranges do not meet."""
    keys, velocities = (
        _intersect(_to_range(outer.generators.get(which)), _to_range(inner.generators.get(which)))
        for which in (KEYS, VELOCITIES)
    )
    if keys[0] > keys[1] or velocities[0] > velocities[1]:
        return None
    special = {KEYS, VELOCITIES, SAMPLE, INSTRUMENT}
    generators = {which: amount for which, amount in inner.generators.items() if which not in special}
    for which, amount in outer.generators.items():
        if which not in special and which not in _OF_INSTRUMENTS_ONLY:
            generators[which] = generators.get(which, DEFAULTS.get(which, 0)) + amount
    modulators = _DEFAULT_MODULATORS | inner.modulators
    for which, amount in outer.modulators.items():
        modulators[which] = modulators.get(which, 0) + amount
    layer = number, outer.generators[INSTRUMENT], inner.generators.get(PAN, 0)
    return Region(inner.generators[SAMPLE], keys, velocities, generators, modulators, layer)


def _to_range(amount: int | None) -> Range:
    return (0, 127) if amount is None else (amount & 0x7F, (amount >> 8) & 0x7F)


def _intersect(one: Range, other: Range) -> Range:
    return max(one[0], other[0]), min(one[1], other[1])


def resolve_modulators(region: Region, key: int, velocity: int) -> Region:
    """Return the region with the modulators' values at `key` and `velocity` added to its generators.

    Controllers are at rest. For a synthesizer without modulators whose gain is linear in the velocity: the attenuation
    makes up for that.
    """
    generators = dict(region.generators)
    start = 32768 * generators.pop(START_OFFSET_COARSE, 0) + generators.pop(START_OFFSET, 0)
    for (source, destination, amount_source, transform), amount in region.modulators.items():
        value = amount * _source_value(source, key, velocity) * _source_value(amount_source, key, velocity)
        value = round(abs(value) if transform == 2 else value)
        if destination == START_OFFSET:
            start += value
        elif value:
            generators[destination] = generators.get(destination, DEFAULTS.get(destination, 0)) + value
    start = max(0, start)
    generators[START_OFFSET_COARSE], generators[START_OFFSET] = divmod(start, 32768)
    base = region.generators.get(ATTENUATION, 0)
    linear = 200.0 * np.log10(127 / max(velocity, 1))  # centibels by which the synthesizer's own gain falls
    attenuation = generators.get(ATTENUATION, 0) - (1.0 - ATTENUATION_SCALE) * base - linear
    generators[ATTENUATION] = max(0, round(attenuation))
    return replace(region, generators=generators, modulators={})


def _source_value(source: int, key: int, velocity: int) -> float:
    """Return the value of a modulator source, 0–1 or −1–1; controllers count as 0, no source as 1."""
    if source == 0:
        return 1.0
    position = {2: velocity, 3: key}.get(source & 0xFF, 0) / 127.0
    if source & 0x100:
        position = 1.0 - position
    if source & 0x200:
        magnitude = _curve(source >> 10, abs(2.0 * position - 1.0))
        return magnitude if position >= 0.5 else -magnitude
    return _curve(source >> 10, position)


def _curve(kind: int, position: float) -> float:
    """Return the linear, concave, convex or switched value (kind 0–3) of `position` 0–1."""
    if kind == 1:
        return min(1.0, -40.0 / 96.0 * float(np.log10(max(1.0 - position, 1e-9))))
    if kind == 2:
        return max(0.0, 1.0 + 40.0 / 96.0 * float(np.log10(max(position, 1e-9))))
    return float(position >= 0.5) if kind == 3 else position


def encode_soundfont(
    presets: Mapping[PresetKey, tuple[str, Sequence[Region]]],
    samples: Mapping[int, Sample],
    info: Mapping[str, str] | None = None,
) -> bytes:
    """Return the file of `presets` (name and regions), one instrument each.

    All of `samples` are PCM, or all are Vorbis.
    """
    tables: dict[bytes, list[tuple[object, ...]]] = {name: [] for name in _RECORDS}
    order = sorted({region.sample for _, regions in presets.values() for region in regions})
    numbers = {sample: number for number, sample in enumerate(order)}
    for index, ((bank, program), (name, regions)) in enumerate(sorted(presets.items())):
        label = name.encode("latin-1")[:19]
        tables[b"phdr"].append((label, program, bank, index, (0, 0, 0)))
        tables[b"pbag"].append((index, 0))
        tables[b"pgen"].append((INSTRUMENT, index))
        tables[b"inst"].append((label, len(tables[b"ibag"])))
        for region in regions:
            tables[b"ibag"].append((len(tables[b"igen"]), len(tables[b"imod"])))
            tables[b"igen"] += [(KEYS, region.keys[0] | region.keys[1] << 8)]
            tables[b"igen"] += [(VELOCITIES, region.velocities[0] | region.velocities[1] << 8)]
            for which, amount in sorted(region.generators.items()):
                if amount != DEFAULTS.get(which, 0):
                    tables[b"igen"].append((which, min(max(amount, -32768), 32767)))
            tables[b"igen"].append((SAMPLE, numbers[region.sample]))
            for (source, destination, amount_source, transform), amount in sorted(region.modulators.items()):
                if _DEFAULT_MODULATORS.get((source, destination, amount_source, transform), 0) != amount:
                    tables[b"imod"].append((source, destination, amount, amount_source, transform))
    tables[b"phdr"].append((b"EOP", 0, 0, len(presets), (0, 0, 0)))
    tables[b"pbag"].append((len(tables[b"pgen"]), 0))
    tables[b"inst"].append((b"EOI", len(tables[b"ibag"])))
    tables[b"ibag"].append((len(tables[b"igen"]), len(tables[b"imod"])))
    for name in (b"pgen", b"igen"):
        tables[name].append((0, 0))
    for name in (b"pmod", b"imod"):
        tables[name].append((0, 0, 0, 0, 0))
    payload: list[bytes] = []
    offset = 0
    for index in order:
        sample = samples[index]
        first, last = sample.loop
        if isinstance(sample.data, bytes):
            payload.append(sample.data)
            start, kind, end = offset, 1 | _VORBIS_FLAG, offset + len(sample.data)
            offset = end
        else:
            payload.append(sample.data.astype("<i2").tobytes() + bytes(2 * _PADDING))
            start, kind, end = offset, 1, offset + len(sample.data)
            first, last, offset = first + start, last + start, end + _PADDING
        label = sample.name.encode("latin-1")[:19]
        tables[b"shdr"].append((label, start, end, first, last, sample.rate, sample.root, sample.correction, 0, kind))
    tables[b"shdr"].append((b"EOS", 0, 0, 0, 0, 0, 0, 0, 0, 0))
    records = b"".join(_chunk(name, np.array(tables[name], dtype).tobytes()) for name, dtype in _RECORDS.items())
    version = 3 if any(isinstance(samples[index].data, bytes) for index in order) else 2
    texts = {"ifil": version.to_bytes(2, "little") + (1).to_bytes(2, "little"), "isng": b"EMU8000\0"}
    texts |= {name: text.encode("latin-1") + b"\0" for name, text in {"INAM": "v2m", **(info or {})}.items()}
    heads = b"".join(_chunk(name.encode(), text + bytes(len(text) % 2)) for name, text in texts.items())
    body = _chunk(b"LIST", b"INFO" + heads) + _chunk(b"LIST", b"sdta" + _chunk(b"smpl", b"".join(payload)))
    return _chunk(b"RIFF", b"sfbk" + body + _chunk(b"LIST", b"pdta" + records))


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)
