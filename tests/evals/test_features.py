import numpy as np
import pytest
import torch

from vitlab.data.preprocess import ImageSpec
from vitlab.errors import BadImagesError
from vitlab.evals.features import extract, map_source


@pytest.mark.parametrize("changes", [{}, {"representation_dim": 5}])
def test_features_are_what_the_head_reads(make_model, make_source, changes):
    model, source = make_model(**changes), make_source(5)
    features = extract(model, source, batch_size=2)
    assert features.shape == (5, changes.get("representation_dim", 16))
    images = torch.stack([torch.from_numpy(image) for image in source.images]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = model.features(model.image_spec.normalise(images))
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_images_are_prepared_and_normalised_as_the_model_says(make_model, make_source):
    model = make_model()
    model.image_spec = ImageSpec(height=8, width=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    seen = []

    def look(images):
        seen.append(images)
        return images.mean(dim=(1, 2, 3), keepdim=False)[:, None]

    source = make_source(4, side=16)
    values, keys = map_source(model, source, look, batch_size=2)
    assert [batch.shape for batch in seen] == [torch.Size([2, 3, 8, 8])] * 2
    expected = [float(model.image_spec.prepare(image).mean()) / 255 for image in source.images]
    np.testing.assert_allclose(values[:, 0], expected, rtol=1e-5)
    assert keys == ("image-0", "image-1", "image-2", "image-3")


def test_every_batch_has_the_same_shape_and_padding_is_cut(make_model, make_source):
    shapes = []

    def look(images):
        shapes.append(images.shape[0])
        return images.flatten(1)[:, :1]

    values, keys = map_source(make_model(), make_source(5), look, batch_size=4)
    assert shapes == [4, 4]
    assert len(values) == len(keys) == 5


def test_worker_processes_change_nothing(make_model, make_source):
    model, source = make_model(), make_source(7)
    np.testing.assert_array_equal(extract(model, source, 2, workers=2), extract(model, source, 2, workers=0))


@pytest.mark.parametrize("workers", [0, 1])
def test_every_image_that_cannot_be_decoded_is_named(make_model, make_source, workers):
    source = make_source(6)
    source.images[2] = source.images[5] = b""
    with pytest.raises(BadImagesError) as error:
        extract(make_model(), source, 2, workers=workers)
    assert [image.where for image in error.value.images] == ["image-2", "image-5"]
