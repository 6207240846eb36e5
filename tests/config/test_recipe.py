from pathlib import Path

import pytest
from conftest import REPOSITORY

from edgecv.config.recipe import STAGES, build_recipe, load_recipe
from edgecv.config.settings import check_settings
from edgecv.config.stages import QuantizeStage
from edgecv.config.tables import shipped_files
from edgecv.errors import UsageError

FILES = sorted((REPOSITORY / "recipes").iterdir())
HEAD = 'schema = 1\nname = "x"\ntitle = "X"\nmodel = "resnet18"\n'


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_shipped_recipe_loads_and_names_real_networks(path: Path) -> None:
    from edgecv.nn.names import check_name

    recipe = load_recipe(path.stem)
    assert recipe.name == path.stem
    assert recipe.title
    assert path.stem in [p.stem for p in shipped_files("recipes")]
    names = [
        recipe.model,
        recipe.distill.student if recipe.distill else "",
        recipe.distill.like if recipe.distill else "",
    ]
    for name in names:
        if name and name != "auto" and not name.endswith(".safetensors"):
            check_name(name)


def _load(tmp_path: Path, text: str) -> object:
    path = tmp_path / "x.toml"
    path.write_text(text)
    return load_recipe(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "[quantise]\n", r"unknown key 'quantise' \({}\). Did you mean 'quantize'"),
        (HEAD + '[export]\n[quantize]\nmode = "int4"\n', "quantize: mode 'int4' .* Did you mean 'int8'"),
        (HEAD + "[export]\n[verify]\nmax_drop = 1\n", r"add \[quantize\]"),
        (HEAD + "[export]\n[quantize]\n[verify]\nmax_drop = true\n", "verify: max_drop is True, not of type float"),
        (HEAD + "[export]\n[quantize]\n[verify]\nmax_drop = inf\n", "max_drop is inf, not a finite number"),
        (HEAD + "[export]\n[quantize]\n[verify]\nmax_drop = 1\n[gates]\nmax_drop = 1\n", "leave one of them"),
        (HEAD, r"there is no stage; add one of \[train\], "),
        (HEAD.replace("schema = 1", "schema = 9"), "schema 9 is newer"),
        (HEAD.replace("schema = 1", "schema = 'one'") + "[train]\n", "schema is 'one', not of type int"),
        ('schema = 1\nmodel = "resnet18"\n[train]\n', "the key 'name' is missing"),
        (HEAD.replace('"x"', '"../x"') + "[train]\n", "name '../x' is not a file name"),
        (HEAD.replace('"resnet18"', '""') + "[train]\n", "the key 'model' is missing"),
        (HEAD + "[train]\nepoch = 3\n", r"train: unknown key 'epoch' \(3\). Did you mean 'epochs'"),
        (HEAD + "[train]\nepochs = -3\n", "train: epochs -3 is not within 1 to"),
        (HEAD + "[train]\nepochs = true\n", "train: epochs is True, not of type int"),
        (HEAD + "[train]\nepochs = 1e9\n", "train: epochs is 1000000000.0, not of type int"),
        (HEAD + '[train]\nlearning_rate = "fast"\n', "train: learning_rate is 'fast', not of type float"),
        (HEAD + "[train]\nlearning_rate = nan\n", "train: learning_rate is nan, not a finite number"),
        (HEAD + "[train]\nlearning_rate = 1" + "0" * 400 + "\n", "learning_rate is 1000.*more than any float"),
        (HEAD + "[train]\nlearning_rate = 0x" + "f" * 9000 + "\n", "learning_rate is a number of thousands of digits"),
        (HEAD + "[train]\nlearning_rate = " + "9" * 9000 + "\n", "not valid TOML"),
        (HEAD + '[train]\nschedule = "cosin"\n', "train: schedule 'cosin' .* Did you mean 'cosine'"),
        (HEAD + '[train]\naugment = "crop"\n', "train: augment is str, not a list"),
        (HEAD + "[train]\ntemperature = 2.0\n", r"train: unknown key 'temperature' \(2.0\). It belongs to \[distill\]"),
        (HEAD + "epochs = 3\n[train]\n", r"unknown key 'epochs' \(3\). It belongs to \[train\]"),
        (HEAD + '[export]\nmodel = "x"\n', "export: unknown key 'model' .* It belongs to the top of the file"),
        (HEAD + "[train]\nwarmup_epochs = 99\n", "train: warmup_epochs 99 is more than epochs 30"),
        (
            HEAD + '[train]\npretrained = true\nweights = "w.pth"\n',
            "train: weights, pretrained and init_from contradict",
        ),
        (HEAD + "[export]\n[quantize]\nimages = 1000000000\n", "quantize: images 1000000000 is not within"),
        (HEAD + "[export]\n[quantize]\nimages = 0\n", "quantize: images 0 is not within"),
        (HEAD + "[distill]\n", "distill: the key 'student' is missing"),
        (HEAD + '[distill]\nstudent = "auto"\n', "distill: student 'auto' and like belong together"),
        (HEAD + '[train]\n[distill]\nstudent = "dsnet"\nteacher = "t.onnx"\n', "leave one of them"),
        (HEAD + "[prune]\n", "prune: say what is to remain"),
        (HEAD + '[prune]\nto = "mac=0.5"\n', "prune: .*mac=0.5.* Did you mean 'macs'"),
        (HEAD + "train = 3\n", "train is 3, not a table"),
        (HEAD + "[[train]]\n", r"train is \[{}\], not a table"),
        (HEAD + "[train]\n[gates]\ntop1 = 90\n", "gates: top1 90.0 is not within 0 to 1"),
        (HEAD + "[export]\n[gates]\nlatency_ms = 3\n", r"gates.latency_ms needs \[bench\]"),
        (HEAD + 'device = "rpi6"\n[train]\n', "no device 'rpi6'. Did you mean 'rpi5'"),
        (HEAD + "hold_out = 0\n[train]\n", "hold_out 0 leaves no images"),
        (HEAD + "seed = -1\n[train]\n", "seed -1 is not within"),
        (HEAD + "[train]\nepochs = 1\nepochs = 2\n", "not valid TOML: .*line 7"),
        ("train", "not valid TOML"),
        (HEAD + "[train]\naugment = " + "[" * 100 + "]" * 100, "nested deeper than 64"),
    ],
    ids=lambda v: v[-30:] if isinstance(v, str) else "",
)
def test_a_wrong_recipe_is_one_sentence_that_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        _load(tmp_path, text)
    assert "x.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_keys_of_a_stage_and_of_its_settings_stand_side_by_side(tmp_path: Path) -> None:
    text = '[train]\nepochs = 3\n[distill]\nstudent = "dsnet"\ntemperature = 2\nepochs = 5\nlearning_rate = 1\n'
    recipe = _load(tmp_path, HEAD + text)
    assert (recipe.train.settings.epochs, recipe.distill.settings.epochs) == (3, 5)
    assert (recipe.distill.distillation.temperature, recipe.distill.settings.learning_rate) == (2.0, 1.0)
    assert recipe.stages == ("train", "distill")


def test_stages_run_in_the_order_of_the_chain_whatever_the_files(tmp_path: Path) -> None:
    assert _load(tmp_path, HEAD + "[quantize]\n[export]\n[train]\n").stages == ("train", "export", "quantize")


def test_an_onnx_file_needs_no_export(tmp_path: Path) -> None:
    onnx = HEAD.replace("resnet18", "m.onnx")
    assert _load(tmp_path, onnx + "[quantize]\n").stages == ("quantize",)
    with pytest.raises(UsageError, match="cannot be trained"):
        _load(tmp_path, onnx + "[train]\n")


def test_changes_are_checked_as_if_the_file_said_them(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(HEAD + "[train]\n")
    recipe = load_recipe(str(path), ("train.epochs=7", "model=lenet5", 'train.augment=["flip"]'), {"data": "d"})
    assert (recipe.train.settings.epochs, recipe.model, recipe.data) == (7, "lenet5", "d")
    assert recipe.train.settings.augment == ("flip",)
    for change, message in (("train.epochs=0", "not within"), ("epochs", "KEY=VALUE"), ("model.x=1", "no stage")):
        with pytest.raises(UsageError, match=message):
            load_recipe(str(path), (change,))


def test_choices_of_the_quantize_stage_are_those_of_the_quantizer() -> None:
    from edgecv.benchmark.plan import PRESETS
    from edgecv.config.stages import BenchStage
    from edgecv.quantize.histogram import METHODS
    from edgecv.quantize.ladder import RUNG_NAMES

    choices = {f.name: f.metadata["choices"] for f in QuantizeStage.__dataclass_fields__.values()}
    assert choices["method"] == ("auto", *RUNG_NAMES)
    assert set(choices["ranges"]) == set(METHODS)
    assert BenchStage.__dataclass_fields__["preset"].metadata["choices"] == tuple(PRESETS)


def test_every_stage_can_be_run() -> None:
    from edgecv.pipeline.recipe_report import FIGURES
    from edgecv.pipeline.recipe_stages import RUNNERS

    assert STAGES.keys() == RUNNERS.keys() == FIGURES.keys()


def test_no_table_at_all_is_told_too() -> None:
    with pytest.raises(UsageError, match="here is 3, not a table"):
        build_recipe(3, "here")  # type: ignore[arg-type]
    check_settings(QuantizeStage())
