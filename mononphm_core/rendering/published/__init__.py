"""The volume rendering of the published program, step by step, with its constants. The field is an argument.

interval (near_far) -> coarse samples -> importance samples -> fine pass, lit or unlit
"""
