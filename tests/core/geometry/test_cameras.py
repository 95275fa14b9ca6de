"""Projection and rays: each undoes the other."""

import torch

from mononphm_core.geometry.cameras import intrinsics_row, project, ray_directions
from mononphm_core.types import HeadPose, Intrinsics

K = Intrinsics(fx=510.0, fy=480.0, cx=130.25, cy=120.5, width=256, height=240)


def test_a_point_along_a_pixels_ray_projects_to_that_pixel():
    """Whatever its depth: a pixel has one ray."""
    k = intrinsics_row(K).double()
    pixels = torch.rand(2, 50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 256
    depth = torch.linspace(0.3, 9, 50, dtype=torch.float64)[:, None]
    rays = ray_directions(pixels, k.expand(2, 4))
    torch.testing.assert_close(rays.norm(dim=-1), torch.ones(2, 50, dtype=torch.float64))
    torch.testing.assert_close(project(rays * depth, k.expand(2, 4)), pixels, rtol=0, atol=1e-9)


def test_projection_is_the_matrix_k():
    """The same camera, written as a matrix."""
    x = torch.tensor([[0.1, -0.2, 2.0], [0.0, 0.3, 1.1]], dtype=torch.float64)
    homogeneous = x @ torch.from_numpy(K.matrix()).T
    expected = homogeneous[:, :2] / homogeneous[:, 2:]
    torch.testing.assert_close(project(x, intrinsics_row(K).double()), expected)


def test_the_ray_through_the_principal_point_looks_straight_ahead():
    """OpenCV axes: z is forward, x right, y down."""
    k = intrinsics_row(K).double()
    rays = ray_directions(torch.tensor([[K.cx, K.cy], [K.cx + 9, K.cy], [K.cx, K.cy + 9]], dtype=torch.float64), k)
    assert rays[0].tolist() == [0.0, 0.0, 1.0]
    assert rays[1, 0] > 0 == rays[1, 1]
    assert rays[2, 1] > 0 == rays[2, 0]


def test_a_crops_camera_sees_the_same_ray_at_the_cropped_pixel():
    """Cropping and resizing a picture do not turn the camera."""
    crop = K.cropped(left=20.0, top=-7.0, scale=0.5, width=64, height=64)
    pixel = torch.tensor([[77.5, 40.5]], dtype=torch.float64)
    there = (pixel - torch.tensor([20.0, -7.0], dtype=torch.float64)) * 0.5
    here_ray = ray_directions(pixel, intrinsics_row(K).double())
    torch.testing.assert_close(ray_directions(there, intrinsics_row(crop).double()), here_ray, rtol=0, atol=1e-7)


def test_a_head_pose_and_its_inverse_cancel():
    """x_posed = scale R x_world + t, and back; per frame."""
    draw = torch.Generator().manual_seed(1)
    rotation = torch.linalg.qr(torch.randn(3, 3, 3, generator=draw, dtype=torch.float64))[0]
    pose = HeadPose(rotation, torch.randn(3, 3, generator=draw).double(), torch.tensor(1.7, dtype=torch.float64))
    x = torch.randn(3, 12, 3, generator=draw, dtype=torch.float64)
    torch.testing.assert_close(pose.to_world(pose.to_posed(x)), x, rtol=0, atol=1e-12)
    one = 1.7 * rotation[2] @ x[2, 5] + pose.translation[2]
    torch.testing.assert_close(pose.to_posed(x)[2, 5], one, rtol=0, atol=1e-12)
