"""A custom node of ComfyUI that adds background music to a video.

Copy this folder to `ComfyUI/custom_nodes/v2m`. ComfyUI's Python needs no other package: give the node the address of a
service (`v2m serve`), or have the command `v2m` on this machine. docs/comfyui.md says more.
"""

from .node import ScoreVideo

NODE_CLASS_MAPPINGS = {"V2MScoreVideo": ScoreVideo}
NODE_DISPLAY_NAME_MAPPINGS = {"V2MScoreVideo": "Background music (v2m)"}
__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
