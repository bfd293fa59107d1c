"""YuE: tags and lyrics → music, by two language models over the codes of a codec."""

from v2m.generators.yue.yue import YuE

__all__ = ["YuE"]
