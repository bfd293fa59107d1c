"""A SentencePiece model in the layout of YuE's tokenizer.model, which knows a few English words.

Every id of the published file is taken. Bytes, marks and codes have their true names; of the text only the pieces that
the tests' prompts are made of do, so that those prompts have the published ids. The rest is filled up with pieces that
no text can form.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sentencepiece import sentencepiece_model_pb2

TEXT = 32000  # pieces of text, as in Llama 2
FIRST_MERGE = 259
FIRST_LETTER, LETTERS = (
    29871,
    "▁etainorsldhcumpgf.by,wvk1)(-0:ISо\\2C\"AаT{}/'xи_еzн=EMPjрD9*LтBRс;#$qN"
    "3вFл548éOHк`6G7Wд>му[]VпU<JKгяіз?+бáйьYóчыíQ^ä&х|X!@ü–%цöжZ",
)
WORDS = """
260:▁t 261:er 262:in 263:▁a 264:en 266:▁th 269:▁s 271:at 272:or 273:an 274:▁c 276:re 278:▁the 279:ar 281:▁w 282:▁p
283:ou 284:al 285:▁f 286:▁m 289:▁b 290:om 292:ing 293:ic 296:ent 297:▁in 298:▁h 300:et 301:▁l 303:st 305:ch 307:ro
317:▁S 324:ol 325:▁v 330:▁g 331:em 344:se 346:ce 348:un 355:end 358:ment 369:ver 375:us 380:▁st 387:eg 402:▁G 403:ate
407:pp 440:iv 442:art 447:▁ha 449:out 456:rom 459:op 472:▁at 475:ain 491:▁by 515:▁from 518:▁[ 529:▁< 542:oc 571:fer
582:ru 624:▁St 663:ence 713:ian 759:ener 784:▁col 832:▁inst 842:set 851:▁str 855:St 886:ings 943:ors 974:of 1199:ics
1208:▁cal 1370:▁war 1517:▁giv 1659:ference 1835:▁pop 2071:▁sk 2183:▁given 2250:▁happ 2301:▁mus 2365:aint 2377:▁seg
2454:atic 2962:start 3251:▁Gener 3328:iano 3901:verse 4316:yr 4362:aring 4670:▁cin 4696:▁music 5679:reference
5778:▁instru 6031:▁strings 6156:SO 6575:▁sun 7931:▁voc 8420:chor 9796:▁happy 10199:seg 10675:▁paint 10768:▁segment
11395:▁instrument 11914:▁piano 11955:▁colors 14294:▁warm 14744:▁sky 15462:Gen 19217:ematic 20982:▁vocal
21732:▁calm 26627:▁lyr 28192:segment 30022:~
"""
MARKS = (
    *("EOD", "SOA", "EOA", "SOI", "EOI", "SOV", "EOV", "s_local", "e_local", "s_global", "e_global"),
    *("semantic", "acoustic", "stage_1", "dac_16k", "dac_44k", "xcodec", "stage_2"),
    *("semantic_mert", "semantic_hubert", "visual", "semanticodec"),
)
CODECS = (("dac16k", 4, 1024), ("dac44k", 9, 1024), ("xcodec", 12, 1024), ("mert", 1, 1024), ("hubert", 1, 512))


def make(path: Path) -> Path:
    """Writes the model to `path`; returns it."""
    model = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    kinds = model.SentencePiece
    trainer, normaliser = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.byte_fallback, trainer.split_digits = trainer.BPE, True, True
    trainer.allow_whitespace_only_pieces, trainer.pad_id = True, -1
    normaliser.name, normaliser.add_dummy_prefix, normaliser.remove_extra_whitespaces = "identity", True, False
    model.pieces.add(piece="<unk>", score=0.0, type=kinds.UNKNOWN)
    for name in ("<s>", "</s>"):
        model.pieces.add(piece=name, score=0.0, type=kinds.CONTROL)
    for byte in range(256):
        model.pieces.add(piece=f"<0x{byte:02X}>", score=0.0, type=kinds.BYTE)
    for at, piece in enumerate(_text(), FIRST_MERGE):
        model.pieces.add(piece=piece, score=float(FIRST_MERGE - at), type=kinds.NORMAL)
    for piece in _marks():
        model.pieces.add(piece=piece, score=0.0, type=kinds.NORMAL)
    path.write_bytes(model.SerializeToString())
    return path


def _text() -> list[str]:
    """Pieces in the order of their ids, which is also that of their merges."""
    pieces = [f"⟦{at}⟧" for at in range(TEXT)]
    pieces[FIRST_LETTER : FIRST_LETTER + len(LETTERS)] = LETTERS
    for word in WORDS.split():
        at, _, piece = word.partition(":")
        pieces[int(at)] = piece
    return pieces[FIRST_MERGE:]


def _marks() -> Iterator[str]:
    yield from (f"<{mark}>" for mark in MARKS)
    for codec, codebooks, entries in CODECS:
        for k in range(codebooks):
            yield from (f"<{codec}/{k}/{c}>" if codebooks > 1 else f"<{codec}/{c}>" for c in range(entries))
    for name, entries in (("s", 16384), ("a", 8192)):
        yield from (f"<semantic/{name}/{c}>" for c in range(entries))
