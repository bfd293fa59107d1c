"""Music generators: tags and video to music.

The modules of user options (`musicgen`, `vidmuse`, `sonique.sonique`, `yue.yue`, `diffusers.pipeline`) import no torch,
so that a wrong command or video is refused at once. They have no TYPE_CHECKING block either: jsonargparse runs those of
the modules whose classes a recipe names.

Whatever loads weights raises DependencyError where they are missing, broken, or do not belong together, and says which.
"""
