"""Frozen pretrained models: hub access, safe loading, encoders, codecs, source separation.

One convention for loading: a class of our own has a classmethod `load`; what makes an object of a library's class is a
function `load_<noun>` (`load_model`, `load_tokenizer`, `load_encodec`). Files are read by `safe_load.read_*`.

Whatever reads files raises DependencyError where they are missing, broken, or of another model, and says which. Where a
`config` and a `state` can be given, they replace the folder's config.json and weights: those of a model stored inside
another one's checkpoint. Encoders and codecs are loaded on the CPU, where weights keep all digits, and then moved.
"""
