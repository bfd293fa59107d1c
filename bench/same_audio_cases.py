"""What `bench.same_audio` makes: the words of each command, as a person types them.

Braces hold places, and names that may differ between two trees (`bench.same_audio.NAMES`).
"""

from __future__ import annotations

from typing import Any

ANSWER = (  # of the tiny tagger, whatever it is asked
    "Caption: A kite flies over a hill.\nGenre: ambient, cinematic\nInstruments: piano, harp\nMood: calm, hopeful\n"
    "Timbre: warm, airy\nTempo: 72 BPM\n\n[verse]\nOver the hill we fly\nUnder the open sky\n\n[chorus]\nHold on to me"
)
WEIGHTS: dict[str, dict[str, Any]] = {  # what the makers of some tiny weights are given
    "melody": {"melody": True, "stereo": True},
    "tagger": {"answer": ANSWER},
}
STYLES = ("ambient", "cinematic", "lo-fi", "acoustic folk", "electronic", "rock", "jazz", "orchestral", "waltz", "funk")
SKETCH = {
    **{style.replace(" ", "_"): f"{{film}} --tags.genres '{style}'" for style in STYLES},
    "example": "{example} --seed 3",
    "tags": "{film} --tags.tempo 90 --tags.key 'F minor' --tags.negative drums --tags.moods tense",
    "dry": "{film} --generator.reverb 0 --generator.style waltz",
    "parts": "{film} --stems --midi --seed 7",
    "two_takes": "{film} --candidates 2 --seed 1",
    "inpainted": "{film} {inpaint} 4:8 {inpaint_source} {out}/sketch/two_takes.wav --seed 5 --stems --midi",
    "inpainted_video": "{film} {inpaint} 8:12 {inpaint_source} {out}/sketch/parts.mp4 --seed 5",
    "ducked": "{film} --mix.original duck --mix.lufs -16",
    "kept": "{film} --mix.original keep --mix.music_gain -3 --start 3 --end 9",
    "between": "{film} --start 3.3 --end 9.1 --mix.fade_in 0.5 --generator.sample_rate 44100",
}
MUSICGEN = "--recipe musicgen --generator.model {weights}/musicgen --generator.window 2 --generator.stride 1"
VIDMUSE = "--recipe vidmuse --generator.window 2 --generator.stride 1"
YUE = (
    "--recipe v2b --tagger.model {weights}/tagger --generator.stage1 {weights}/yue/stage1 "
    "--generator.stage1_reference {weights}/yue/stage1 --generator.stage2 {weights}/yue/stage2 "
    "--generator.codec {weights}/yue/codec"
)
DENOISED = "--generator.model {weights}/sonique --generator.overlap 0.3 --generator.sampling.steps 4"
SONIQUE = (
    f"--recipe sonique {DENOISED} --tags.genres rock --tags.instruments guitar,drums --tags.moods calm "
    "--tags.tempo 140 --tags.key 'D major'"
)
SOLVERS = ("k-heun", "k-dpm-2", "k-lms", "k-dpmpp-2s-ancestral", "dpmpp-3m-sde", "k-dpm-fast")
STABLE = "--recipe stableaudio --generator.steps 2 --generator.model"
ACE = "--recipe acestep --generator.steps 2 --generator.model {weights}/acestep"
MODELS = {
    "musicgen": f"{{cuts}} {MUSICGEN} --tags.negative drums",
    "musicgen_unguided": f"{{cuts}} {MUSICGEN} {{cfg_scale}} 0 --end 1",
    "musicgen_int8": f"{{cuts}} {MUSICGEN} --low-memory --end 1",
    "musicgen_bfloat16": f"{{cuts}} {MUSICGEN} --generator.precision bf16 --end 1",
    "musicgen_takes": f"{{cuts}} {MUSICGEN} --candidates 2 --end 1.5",
    "musicgen_melody": "{cuts} --recipe musicgen --generator.model {weights}/melody --melody {tone} --end 1.5",
    "vidmuse": f"{{cuts}} {VIDMUSE}",
    "vidmuse_led": f"{{cuts}} {VIDMUSE} {{video_cfg_scale}} 4 --end 2.5 --candidates 2",
    "yue": f"{{cuts}} {YUE} --stems {{section}} 2",
    "yue_sung": f"{{cuts}} {YUE} --stems --tags.vocals true --end 1",
    "yue_reference": f"{{cuts}} {YUE} --reference {{cuts}} --reference {{tone}} --end 0.5",
    "sonique": f"{{cuts}} {SONIQUE} --tags.negative noise",
    "sonique_inpainted": f"{{cuts}} {SONIQUE} {{inpaint}} 1:2 {{inpaint_source}} {{out}}/models/sonique.wav --seed 9",
    "sonique_melody": f"{{cuts}} {SONIQUE} --melody {{tone}} --generator.melody_strength 0.7 --end 1.5 --candidates 2",
    **{solver: f"{{cuts}} {SONIQUE} --end 0.6 --generator.sampling.sampler {solver}" for solver in SOLVERS},
    "sonique_llm": f"{{cuts}} --recipe sonique-llm {DENOISED} --tagger.model {{weights}}/chat {{captioner}} "
    "{weights}/tagger --tags.instruments HARP,banjo --end 1.5",
    "acestep": f"{{cuts}} {ACE} --tags.tempo 96 --reference {{tone}}",
    "acestep_sung": f"{{cuts}} {ACE} --tags.vocals true --tags.lyrics '[verse] la la' --end 1 --candidates 2",
    "acestep_melody": f"{{cuts}} {ACE} --melody {{tone}} --end 1",
    "acestep_inpainted": f"{{cuts}} {ACE} {{inpaint}} 1:2 {{inpaint_source}} {{out}}/models/acestep.wav",
    "stableaudio": f"{{cuts}} {STABLE} {{weights}}/stableaudio --tags.negative drums",
    "stableaudio_inpainted": f"{{cuts}} {STABLE} {{weights}}/stableaudio {{inpaint}} 1:2 {{inpaint_source}} "
    "{out}/models/stableaudio.wav",
    "stableaudio3": f"{{cuts}} {STABLE} {{weights}}/stableaudio3",
    "stableaudio3_melody": f"{{cuts}} {STABLE} {{weights}}/stableaudio3 --melody {{tone}} --end 1",
}
FOLLOWED = "{film} --melody {drums} --tags.tempo 120"
ALIGNED = {  # music with a beat, of which no generator says where it is
    "stableaudio": f"{FOLLOWED} --generator.melody_strength 0.95 {STABLE} {{weights}}/stableaudio",
    "stableaudio_unmoved": f"{FOLLOWED} --generator.melody_strength 0.95 {STABLE} {{weights}}/stableaudio "
    "{align_to_cuts} false",
    "acestep": f"{FOLLOWED} --generator.melody_strength 0.95 {ACE}",
    "sonique": f"{FOLLOWED} --generator.melody_strength 0.1 {SONIQUE} --candidates 2",
}
FIT = (
    "--config {root}/configs/train/tiny.yaml --data.train {weights}/prepared/shards --data.validation "
    "{weights}/prepared/shards --data.window 1 {batch_size} 2 --trainer.max_steps 6 --trainer.log_every_n_steps 1 "
    "--trainer.logger lightning.pytorch.loggers.CSVLogger --trainer.enable_progress_bar false "
    "--trainer.enable_model_summary false"
)
SMALL = "{lm_dim} 32 {lm_layers} 1"
TRAINED = {
    "v2m": SMALL,
    "vidmuse": f"{SMALL} --model.conditioner '{{conditioner}}'",
    "lora": "{init_from} {out}/training/v2m/exported --model.lm null --model.conditioner null {rank} 4",
}
PREPARE = (
    "{out}/videos {vision_encoder} {weights}/prepared/encoders/clip --codec {weights}/prepared/encoders/encodec "
    "{text_encoder} {weights}/prepared/encoders/t5 --processes 1 --device cpu --quiet "
    "{min_duration} 2 {long_term_frames} 4"
)
PREPARED = {"mono": "", "stereo": "--stereo true --vocals remove --separator {weights}/separator"}
