from __future__ import annotations

import pytest
import torch
from kornia.augmentation import RandomAffine, RandomErasing, RandomHorizontalFlip
from torch import Tensor, nn

from training.config import build_config
from training.data.transforms import Augment, recombine

OFF = ["flip=0", "translation=0", "erasing=0"]


def augment(*overrides: str) -> Augment:
    """The smoke preset with everything off but the overrides."""
    return Augment(build_config("smoke", overrides=[*OFF, *overrides]))


def shown(augmentation: Augment, pictures: Tensor) -> Tensor:
    """What the network is shown, back as colours in [0, 1]."""
    return augmentation(pictures) * augmentation.std + augmentation.mean


@pytest.fixture
def pictures() -> Tensor:
    return torch.randint(0, 256, (6, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_off_is_off(pictures: Tensor) -> None:
    plain = augment()
    expected = (pictures.float() / 255 - plain.mean) / plain.std
    torch.testing.assert_close(plain(pictures), expected, rtol=0, atol=0)


@pytest.mark.parametrize("preset", ["smoke", "strong", "paper"])
def test_a_seed_draws_the_same(preset: str, pictures: Tensor) -> None:
    both = Augment(build_config(preset))
    torch.manual_seed(1)
    first = both(pictures)
    torch.manual_seed(1)
    torch.testing.assert_close(both(pictures), first, rtol=0, atol=0)
    assert not torch.equal(both(pictures), first)


@pytest.mark.parametrize(
    ("overrides", "rotation", "translation", "flip"),
    [
        ([], 0.0, 0.05, 0.5),
        (["rotation=10"], 10.0, 0.05, 0.5),
        (["rotation=5", "translation=0", "flip=1"], 5.0, 0.0, 1.0),
    ],
)
def test_the_draws_are_those_of_earlier_runs(
    overrides: list[str], rotation: float, translation: float, flip: float, pictures: Tensor
) -> None:
    """With what came later switched off, to the bit what the first version drew: a run that began then continues."""
    resample = "bilinear" if rotation else "nearest"
    shift = (translation, translation)
    geometry = nn.Sequential(
        RandomAffine(rotation, translate=shift, resample=resample, p=1.0), RandomHorizontalFlip(p=flip)
    )
    erase = RandomErasing(scale=(0.02, 0.4), ratio=(0.3, 3.3), value=0.0, p=0.5)
    now = Augment(build_config("strong", overrides=overrides))
    torch.manual_seed(5)
    expected = erase((geometry(pictures.float() / 255) - now.mean) / now.std)
    torch.manual_seed(5)
    torch.testing.assert_close(now(pictures), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("setting", "axis"), [("flip", 3), ("vertical_flip", 2)])
def test_a_flip_mirrors(setting: str, axis: int, pictures: Tensor) -> None:
    torch.testing.assert_close(augment(f"{setting}=1")(pictures), augment()(pictures.flip(axis)), rtol=0, atol=0)
    torch.manual_seed(0)
    half = augment(f"{setting}=0.5")(pictures.repeat(50, 1, 1, 1))
    mirrored = augment()(pictures.flip(axis)).repeat(50, 1, 1, 1)
    share = (half == mirrored).flatten(1).all(1).float().mean()
    assert 0.4 < share < 0.6


def test_a_shift_alone_invents_no_colour() -> None:
    black_and_white = torch.randint(0, 2, (8, 3, 64, 32), dtype=torch.uint8) * 255
    shifted = shown(augment("translation=0.2"), black_and_white)
    assert ((shifted < 1e-5) | (shifted > 1 - 1e-5)).all()
    assert not torch.equal(shifted > 0.5, black_and_white > 0)


def test_a_shift_goes_no_further_than_said() -> None:
    """A vertical and a horizontal line end up to 1/8 of the size away, either way."""
    cross = torch.zeros(200, 3, 64, 32, dtype=torch.uint8)
    cross[:, :, 32, :] = 255
    cross[:, :, :, 16] = 255
    torch.manual_seed(0)
    moved = shown(augment("translation=0.125"), cross)[:, 0] > 0.5
    rows, columns = moved[:, :, 5].int().argmax(1) - 32, moved[:, 12, :].int().argmax(1) - 16
    assert (int(rows.abs().max()), int(columns.abs().max())) == (8, 4)
    assert rows.min() < 0 < rows.max()
    assert columns.min() < 0 < columns.max()


def test_zoom_enlarges_and_the_greatest_shift_shows_no_border() -> None:
    """The paper's augmentation in its lineage's form: 9/8 of the size, cropped somewhere (Random2DTranslation)."""
    white = torch.full((500, 3, 64, 32), 255, dtype=torch.uint8)
    torch.manual_seed(0)
    torch.testing.assert_close(
        shown(augment("zoom=1.125", "translation=0.0625"), white), torch.ones(500, 3, 64, 32), rtol=0, atol=1e-5
    )
    ramp = torch.arange(0, 64, dtype=torch.uint8)[:, None].expand(1, 3, 64, 32)
    rows = 255 * shown(augment("zoom=1.125"), ramp)[0, 0, :, 16]
    expected = (torch.arange(64) - 31.5) / 1.125 + 31.5
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("rotation", [2.0, 10.0])
def test_a_rotation_turns_no_further_than_said(rotation: float) -> None:
    """A line through the middle leaves the picture at most the angle's tangent away, either way."""
    line = torch.zeros(200, 3, 65, 65, dtype=torch.uint8)
    line[:, :, 32, :] = 255
    torch.manual_seed(0)
    turned = shown(augment(f"rotation={rotation}"), line)[:, 0, :, 62]
    away = turned.argmax(1).float() - 32
    furthest = 30 * torch.tensor(rotation).deg2rad().tan()
    assert away.abs().max() <= furthest + 1
    assert away.min() < -0.5 * furthest
    assert away.max() > 0.5 * furthest


def test_colour_changes_each_picture_and_keeps_the_range(pictures: Tensor) -> None:
    torch.manual_seed(0)
    changed = shown(augment("colour=0.4"), pictures)
    assert changed.min() > -1e-6
    assert changed.max() < 1 + 1e-6
    assert ((changed - pictures / 255).abs().flatten(1).mean(1) > 0.005).all()


def test_colour_goes_no_further_than_said() -> None:
    """A plain grey has no contrast or saturation to change: what is left is the brightness."""
    grey = torch.full((300, 3, 64, 32), 100, dtype=torch.uint8)
    torch.manual_seed(0)
    factors = shown(augment("colour=0.2"), grey).mean((1, 2, 3)) * 2.55
    assert 0.8 <= factors.min() < 0.82
    assert 1.18 < factors.max() <= 1.2001


def test_erasing_covers_a_share_with_the_mean_colour() -> None:
    white = torch.full((300, 3, 64, 32), 255, dtype=torch.uint8)
    torch.manual_seed(0)
    erased = augment("erasing=1")(white) == 0
    assert (erased.all(1) == erased.any(1)).all()
    shares = erased[:, 0].float().mean((1, 2))
    assert shares.min() > 0.01
    assert shares.max() < 0.42
    assert shares.max() - shares.min() > 0.25
    assert augment("erasing=0.5")(white)[:, 0].eq(0).any(1).any(1).float().mean() == pytest.approx(0.5, abs=0.1)


def test_blurred_pictures_keep_their_mean_and_lose_their_edges() -> None:
    edges = torch.zeros(20, 3, 64, 32, dtype=torch.uint8)
    edges[..., 24:40, 8:24] = 255
    torch.manual_seed(0)
    plain, blurred = shown(augment(), edges), shown(augment("blur=1"), edges)
    torch.testing.assert_close(blurred.mean(), plain.mean(), rtol=0.01, atol=0)
    assert blurred.std(dim=(1, 2, 3)).median() < 0.99 * plain.std()


def test_a_cast_changes_each_colour_by_itself_and_no_further_than_said() -> None:
    grey = torch.full((300, 3, 64, 32), 100, dtype=torch.uint8)
    torch.manual_seed(0)
    gains = shown(augment("cast=0.2"), grey).mean((2, 3)) * 2.55
    assert 0.8 <= gains.min() < 0.82
    assert 1.18 < gains.max() <= 1.2001
    assert (gains.amax(1) - gains.amin(1)).median() > 0.05


def test_grey_takes_the_colours_of_a_share(pictures: Tensor) -> None:
    torch.manual_seed(0)
    changed = shown(augment("grey=0.5"), pictures.repeat(50, 1, 1, 1))
    colourless = ((changed.amax(1) - changed.amin(1)) < 1e-5).flatten(1).all(1)
    assert 0.4 < colourless.float().mean() < 0.6


def test_stretch_scales_height_and_width_by_themselves_and_no_further_than_said() -> None:
    """A centred box of half the size either way."""
    box = torch.zeros(300, 3, 64, 64, dtype=torch.uint8)
    box[:, :, 16:48, 16:48] = 255
    torch.manual_seed(0)
    stretched = shown(augment("stretch=0.25"), box)[:, 0] > 0.5
    heights, widths = stretched[:, :, 32].sum(1) / 32, stretched[:, 32, :].sum(1) / 32
    for sizes in (heights, widths):
        assert 0.72 < sizes.min() < 0.8
        assert 1.2 < sizes.max() < 1.28
    assert (heights - widths).abs().max() > 0.3


def test_recombined_people_have_their_own_head_and_anothers_feet() -> None:
    """Three identities of four shots, each picture of one number: two shots of each get legs of another identity."""
    numbers = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 3, 20, 4)
    torch.manual_seed(0)
    partners = set()
    for _ in range(50):
        pictures, changed = recombine(numbers, 4, 2)
        assert changed.tolist() == [False, False, True, True] * 3
        assert torch.equal(pictures[~changed], numbers[~changed])
        assert torch.equal(pictures[:, :, :8], numbers[:, :, :8])
        feet = pictures[:, 0, 12:, 0]
        assert (feet == feet[:, :1]).all()
        assert ((feet[changed, 0] // 4) != torch.arange(12)[changed] // 4).all()
        partners |= {(place, int(foot)) for place, foot in enumerate(feet[:, 0]) if changed[place]}
    assert len(partners) == 6 * 8
