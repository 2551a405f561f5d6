"""Prints the objects that Blender makes of a GLB file, as the last line, JSON.

Run with a Python that has Blender as a module (``pip install bpy``).
"""

import json
import sys

import bpy

bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath=sys.argv[1])
found = {}
for item in bpy.data.objects:
    evaluated = item.evaluated_get(bpy.context.evaluated_depsgraph_get())  # with its shape keys
    found[item.name] = {
        "positions": [list(item.matrix_world @ vertex.co) for vertex in evaluated.data.vertices],
        "keys": {key.name: key.value for key in item.data.shape_keys.key_blocks},
        "images": [list(image.size) for image in bpy.data.images],
    }
print(json.dumps(found))
