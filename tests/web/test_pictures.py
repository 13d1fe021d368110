"""From voxels to what the browser gets."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.web.conftest import Site, a_volume
from triage.web import wording
from triage.web.pictures import pictures_of, seen_slices, windowed


def decoded(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.mode) == ("PNG", "L")
    return np.asarray(image)


def test_each_slice_comes_as_its_own_pixels(site: Site) -> None:
    volume = a_volume()
    series_id = site.suspected(volume=volume)
    low, high = np.percentile(volume.voxels_ZYX, [1, 99.5])
    expected_ZYX = np.clip((volume.voxels_ZYX - low) / (high - low) * 255, 0, 255)
    for index in range(6):
        answer = site.client.get(f"/series/{series_id}/slices/{index}.png")
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["cache-control"] == "no-store"
        np.testing.assert_allclose(decoded(answer.content), expected_ZYX[index], atol=0.51)


@pytest.mark.parametrize("index", ["6", "-1", "x", "99999999999999"])
def test_there_is_no_slice_beyond_the_last(site: Site, index: str) -> None:
    site.page(f"/series/{site.suspected(volume=a_volume())}/slices/{index}.png", 404)


def test_a_volume_is_read_once(site: Site) -> None:
    series_id = site.suspected(volume=a_volume())
    site.page(f"/series/{series_id}")
    for path in site.line.shelf.folder.iterdir():
        path.unlink()
    assert site.client.get(f"/series/{series_id}/slices/3.png").status_code == 200


def test_pictures_that_were_purged_are_said_to_be_gone(site: Site) -> None:
    series_id = site.suspected()
    page = site.page(f"/series/{series_id}")
    assert wording.PICTURES_GONE in page
    assert "data-viewer" not in page
    site.page(f"/series/{series_id}/slices/0.png", 404)


def test_there_are_no_pictures_before_a_result(site: Site) -> None:
    site.page(f"/series/{site.arrives()}/slices/0.png", 404)


def test_pixels_that_are_not_square_are_stretched() -> None:
    volume = a_volume((4.0, 2.0, 1.0))
    pictures = pictures_of(volume.voxels_ZYX, np.array([0.0]), volume.spacing_mm)
    assert pictures.size == (12, 16)
    assert decoded(pictures.png(0)).shape == (16, 12)


def test_a_volume_without_contrast_is_black() -> None:
    assert not windowed(np.full((2, 3, 4), 7, np.float32)).any()


def test_positions_beyond_the_volume_are_its_end_slices() -> None:
    assert seen_slices(np.array([-0.4, 0.5, 3.2]), 4) == {0, 1, 3}
