"""From a signed distance to triangles, from triangles to pictures. The field is an argument: no network is known."""
