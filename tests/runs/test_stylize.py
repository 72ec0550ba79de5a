"""Stylized images: statistics by hand, the layout of the weights, and the command on real photographs."""

import shutil

import pytest
import torch
from PIL import Image

from tests.helpers import mtimes, run_script
from timm_repaint.baselines.adain import AdaIN, load_adain, match_statistics
from timm_repaint.baselines.stylize import main, parse_args, style_of
from timm_repaint.errors import UsageError
from timm_repaint.pictures import find_pictures, list_pictures

VGG_CONVOLUTIONS = (0, 2, 5, 9, 12, 16, 19, 22, 25, 29)  # places in the published files
DECODER_CONVOLUTIONS = (1, 5, 8, 11, 14, 18, 21, 25, 28)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Random weights in the published layout, with a layer of VGG that is not used."""
    folder = tmp_path_factory.mktemp('weights')
    torch.manual_seed(0)
    networks = AdaIN()
    vgg = {**networks.encoder.state_dict(), '32.weight': torch.ones(512, 512, 3, 3), '32.bias': torch.ones(512)}
    torch.save(vgg, folder / 'vgg.pth')
    torch.save(networks.decoder.state_dict(), folder / 'decoder.pth')
    return '--vgg', str(folder / 'vgg.pth'), '--decoder', str(folder / 'decoder.pth')


@pytest.fixture
def folders(shared_data, tmp_path):
    """Three photographs of two classes and two styles."""
    source = sorted((shared_data / 'caltech101-20' / 'train').iterdir())
    for folder, name, number in (('images/a', '1.jpg', 0), ('images/a', '2.jpg', 1), ('images/b', '1.jpg', 2)):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sorted(source[number].iterdir())[0], tmp_path / folder / name)
    (tmp_path / 'styles').mkdir()
    for number in (3, 4):
        shutil.copyfile(sorted(source[number].iterdir())[0], tmp_path / 'styles' / f'{number}.jpg')
    return tmp_path


def command(folders, *options):
    places = [str(folders / name) for name in ('images', 'styles', 'out')]
    return [*places, '--size', '32', '--device', 'cpu', *options]


def test_the_statistics_by_hand():
    content = torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]])  # mean 3
    style = torch.tensor([[[[10.0, 14.0], [18.0, 22.0]]]])  # mean 16, twice the deviation
    wanted = torch.tensor([[[[10.0, 14.0], [18.0, 22.0]]]])
    torch.testing.assert_close(match_statistics(content, style), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(match_statistics(content, content), content)


def test_a_flat_style_takes_the_content_away():
    flat = match_statistics(torch.randn(1, 2, 8, 8), torch.full((1, 2, 4, 4), 5.0))
    assert (flat - 5).abs().max() < 0.02  # the variance has a floor


def test_the_layout_is_that_of_the_published_files():
    networks = AdaIN()
    for network, places in ((networks.encoder, VGG_CONVOLUTIONS), (networks.decoder, DECODER_CONVOLUTIONS)):
        assert list(network.state_dict()) == [f'{place}.{part}' for place in places for part in ('weight', 'bias')]
    assert networks.encoder.state_dict()['29.weight'].shape == (512, 256, 3, 3)
    assert networks.decoder.state_dict()['28.weight'].shape == (3, 64, 3, 3)


@pytest.mark.parametrize('size', [(32, 32), (37, 50)])
def test_any_size_comes_out_as_it_went_in(size):
    picture = AdaIN().eval()(torch.rand(1, 3, *size), torch.rand(1, 3, 32, 32))
    assert picture.shape == (1, 3, *size)
    assert picture.min() >= 0 and picture.max() <= 1


def test_each_image_gets_its_own_style_whatever_else_is_there():
    styles = [f'{number}.jpg' for number in range(10)]
    chosen = [style_of(f'a/{number}.jpg', styles) for number in range(200)]
    assert set(chosen) == set(styles)
    assert chosen == [style_of(f'a/{number}.jpg', styles) for number in range(200)]


def test_the_command_mirrors_the_tree_and_goes_on_where_it_stopped(folders, weights, capsys):
    done = run_script('-m timm_repaint.cli stylize', *command(folders, *weights))
    assert done.stdout.strip() == '3 images made, 0 were there, 0 failed'
    assert 'stylize: 100%' in done.stderr
    (folders / 'out' / 'manifest.json').rename(folders / 'manifest.json')
    names = {f'{name}.stylized.jpg' for name in ('a/1.jpg', 'a/2.jpg', 'b/1.jpg')}
    before = mtimes(folders / 'out')
    assert set(before) == names
    for name in names:
        with Image.open(folders / 'out' / name) as image:
            image.load()
            assert min(image.size) == 32
    (folders / 'out' / 'a' / '2.jpg.stylized.jpg').unlink()
    (folders / 'manifest.json').rename(folders / 'out' / 'manifest.json')
    assert main(command(folders, *weights)) == 0
    assert capsys.readouterr().out.strip() == '1 images made, 2 were there, 0 failed'
    after = mtimes(folders / 'out')
    assert {name for name in names if before[name] != after[name]} == {'a/2.jpg.stylized.jpg'}


def test_shards_together_make_what_one_call_makes(folders, weights, capsys):
    for shard in ('1/2', '2/2'):
        assert main(command(folders, *weights, '--shard', shard)) == 0
    parts = {path: path.read_bytes() for path in (folders / 'out').rglob('*.jpg')}
    assert len(parts) == 3
    shutil.rmtree(folders / 'out')
    main(command(folders, *weights))
    assert {path: path.read_bytes() for path in (folders / 'out').rglob('*.jpg')} == parts
    assert '2 images made' in capsys.readouterr().out


def test_originals_lie_beside_for_training_on_both(folders, weights):
    main(command(folders, *weights, '--with-originals'))
    names = sorted(find_pictures(folders / 'out'))
    assert names == sorted(n + e for n in ('a/1.jpg', 'a/2.jpg', 'b/1.jpg') for e in ('', '.stylized.jpg'))
    assert (folders / 'out' / 'a' / '1.jpg').read_bytes() == (folders / 'images' / 'a' / '1.jpg').read_bytes()
    (folders / 'images').rename(folders / 'moved')
    again = command(folders, *weights, '--with-originals')
    assert main([str(folders / 'moved'), *again[1:]]) == 0
    assert all((folders / 'out' / name).is_file() for name in names)


def test_another_size_or_other_styles_are_refused_in_the_same_folder(folders, weights):
    assert main(command(folders, *weights)) == 0
    with pytest.raises(UsageError, match=r'size is 32, not 48; use the same options, or another folder'):
        main([*command(folders, *weights), '--size', '48'])
    (folders / 'styles' / '3.jpg').rename(folders / 'styles' / '5.jpg')
    with pytest.raises(UsageError, match='styles is'):
        main(command(folders, *weights))


def test_an_unreadable_image_is_named_and_the_others_are_made(folders, weights, capsys):
    (folders / 'images' / 'a' / '1.jpg').write_bytes(b'no image')
    assert main(command(folders, *weights)) == 1
    printed = capsys.readouterr()
    assert 'unreadable: a/1.jpg in the style of' in printed.err
    assert '2 images made, 0 were there, 1 failed' in printed.out


def test_folders_that_do_not_fit_are_told(folders, weights):
    (folders / 'empty').mkdir()
    with pytest.raises(UsageError, match=r'style folder .*empty has no images'):
        list_pictures(folders / 'empty', 'style')
    with pytest.raises(UsageError, match=r'image folder .*none does not exist'):
        list_pictures(folders / 'none', 'image')
    with pytest.raises(UsageError, match='lies inside the image folder'):
        main([str(folders / 'images'), str(folders / 'styles'), str(folders / 'images' / 'out'), *weights])


def test_weights_of_another_layout_are_told(weights, tmp_path):
    _, vgg, _, decoder = weights
    with pytest.raises(UsageError, match=r'none\.pth: No such file'):
        load_adain('none.pth', decoder)
    with pytest.raises(UsageError, match=r'decoder\.pth is not the VGG .*: missing 0\.weight'):
        load_adain(decoder, decoder)
    torch.save({**torch.load(decoder, weights_only=True), '28.bias': torch.ones(4)}, tmp_path / 'odd.pth')
    with pytest.raises(UsageError, match=r'not the decoder .*: of another shape 28\.bias \[4\] instead of \[3\]'):
        load_adain(vgg, str(tmp_path / 'odd.pth'))
    (tmp_path / 'text.pth').write_text('no weights')
    with pytest.raises(UsageError, match=r'text\.pth is not a checkpoint'):
        load_adain(vgg, str(tmp_path / 'text.pth'))


@pytest.mark.parametrize('options', ['--shard 3/2', '--shard 1', '--size 8'])
def test_values_out_of_range_are_told(options, capsys):
    with pytest.raises(SystemExit):
        parse_args(['a', 'b', 'c', *options.split()])
    assert options.split()[1] in capsys.readouterr().err
