"""Files in and out: media, weights, meshes, tables, the manifest. Nothing here decides anything about heads."""
