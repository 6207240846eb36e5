from pathlib import Path

from edgecv.nn.checkpoint import save_network
from edgecv.nn.describe import describe_network
from edgecv.nn.models import build_network
from edgecv.nn.names import list_networks
from edgecv.nn.networks import NETWORKS
from edgecv.nn.student import student_of


def test_every_own_network_is_listed_first_and_described() -> None:
    names = list_networks()
    assert names[: len(NETWORKS)] == sorted(NETWORKS)
    for name in NETWORKS:
        facts = describe_network(name)
        assert facts.parameters > 0
        assert facts.macs
        assert facts.weights == "none"
        assert facts.input_size[1] == NETWORKS[name].input_size


def test_the_libraries_are_described_as_before() -> None:
    facts = describe_network("resnet18")
    assert (facts.parameters, facts.input_size) == (11_689_512, (3, 224, 224))
    assert facts.license == "apache-2.0"
    torchvision = describe_network("torchvision:resnet18")
    assert (torchvision.parameters, torchvision.macs) == (facts.parameters, facts.macs)
    assert (torchvision.license, torchvision.weights) == ("BSD-3-Clause", "download")


def test_a_checkpoint_is_described_as_it_is(tmp_path: Path) -> None:
    student = student_of("lenet5", macs=0.6)
    path = tmp_path / "s.safetensors"
    save_network(path, student)
    assert list_networks(str(path)) == [str(path)]
    facts = describe_network(str(path))
    assert facts.weights == "checkpoint"
    assert facts.macs == student.stages[0]["settings"]["macs"]
    assert facts.parameters == sum(p.numel() for p in student.module.parameters())


def test_arguments_change_what_is_described() -> None:
    assert describe_network("speednet:width=0.5").parameters < describe_network("speednet").parameters / 3
    assert build_network("speednet:width=0.5", random_init=True).arguments["width"] == 0.5
