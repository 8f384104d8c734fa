from __future__ import annotations

import pytest

from tensorcast.errors import DeploymentError, HardwareError
from tensorcast.hardware.topology import Tier, Topology

NODE = Tier("nvlink", "switch", 8, 450e9)
NET = Tier("ib", "switch", 1024, 50e9)
TWO = Topology((NODE, NET))


def spread(topology, size, stride=1):
    return [(tier.name, ranks) for tier, ranks in topology.split(size, stride)]


@pytest.mark.parametrize(
    ("size", "stride", "parts"),
    [
        (1, 1, []),
        (8, 1, [("nvlink", 8)]),
        (16, 1, [("nvlink", 8), ("ib", 2)]),
        (4, 8, [("ib", 4)]),
        (2, 4, [("nvlink", 2)]),
        (4, 4, [("nvlink", 2), ("ib", 2)]),
        (3, 3, [("nvlink", 3)]),
        (12, 1, [("nvlink", 8), ("ib", 2)]),
        (2, 16, [("ib", 2)]),
    ],
)
def test_a_group_spreads_over_the_tiers(size, stride, parts):
    assert spread(TWO, size, stride) == parts


def test_three_tiers():
    sio, ub, net = (
        Tier("sio", "full_mesh", 2, 224e9, links=1),
        Tier("ub", "switch", 16, 196e9),
        Tier("roce", "switch", 64, 25e9),
    )
    wired = Topology((sio, ub, net))
    assert spread(wired, 32) == [("sio", 2), ("ub", 8), ("roce", 2)]
    assert spread(wired, 8, 2) == [("ub", 8)]


def test_a_full_mesh_group_uses_the_links_to_its_own_peers():
    mesh = Tier("hccs", "full_mesh", 8, 196e9, links=7)
    assert [mesh.egress(n) for n in (2, 4, 8)] == [28e9, 84e9, 196e9]
    assert NODE.egress(2) == 450e9


def test_more_devices_than_there_are():
    with pytest.raises(
        DeploymentError, match=r"2048 devices asked for, the machine connects at most 1024 \(nvlink 8, ib 1024\)"
    ):
        TWO.validate(2048)
    with pytest.raises(DeploymentError, match="at most 1024"):
        TWO.split(2, 1024)
    TWO.validate(1024)


@pytest.mark.parametrize("size", [0, -1, 2.5, True])
def test_impossible_groups(size):
    with pytest.raises(DeploymentError, match="whole number"):
        TWO.split(size)


def test_tiers_must_nest():
    with pytest.raises(HardwareError, match=r"must be a multiple of those of nvlink \(8\)"):
        Topology((NODE, Tier("ib", "switch", 12, 50e9)))
    with pytest.raises(HardwareError, match="full_mesh, switch, ring"):
        Tier("x", "swich", 8, 1e9)
