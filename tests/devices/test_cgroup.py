import os

import pytest

from sam3i_edge.devices import cgroup, machine


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


V2 = {"proc/self/cgroup": "0::/"}
V1 = {"proc/self/cgroup": "12:pids:/docker/abc\n4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n0::/"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({**V2, "sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ({**V2, "sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        ({**V2, "sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
        ({**V2, "sys/fs/cgroup/cpu.max": "nonsense"}, None),
        ({"sys/fs/cgroup/cpu.max": "200000 100000"}, 2),  # no /proc: the root of what is mounted
        # The tightest of this group and those around it.
        (
            {
                "proc/self/cgroup": "0::/kube/pod",
                "sys/fs/cgroup/kube/cpu.max": "100000 100000",
                "sys/fs/cgroup/kube/pod/cpu.max": "400000 100000",
            },
            1,
        ),
        ({"proc/self/cgroup": "0::/not/seen/here", "sys/fs/cgroup/cpu.max": "300000 100000"}, 3),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000",
            },
            None,
        ),
    ],
)
def test_processor_time(tmp_path, files, cores):
    assert cgroup.cpu_limit(write(tmp_path, files)) == cores


@pytest.mark.parametrize(
    ("files", "memory"),
    [
        ({}, None),
        ({**V2, "sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/memory.current": "5"}, None),
        ({**V2, "sys/fs/cgroup/memory.max": "512", "sys/fs/cgroup/memory.current": "100"}, (512, 100)),
        ({**V2, "sys/fs/cgroup/memory.max": "512"}, (512, 0)),
        (
            {
                **V1,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "1024",
                "sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes": "24",
            },
            (1024, 24),
        ),
    ],
)
def test_memory(tmp_path, files, memory):
    assert cgroup.memory_limit(write(tmp_path, files)) == memory


@pytest.mark.parametrize(("share", "cores"), [(None, 64), (2.0, 2), (1.5, 1), (0.5, 1), (100.0, 64)])
def test_threads_go_by_the_share(monkeypatch, share, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(cgroup, "cpu_limit", lambda: share)
    assert machine.usable_cores() == cores


def test_what_the_container_may_take_is_the_machines_memory(tmp_path):
    write(tmp_path, {**V2, "sys/fs/cgroup/memory.max": "67108864", "sys/fs/cgroup/memory.current": "1024"})
    found = machine.inspect(tmp_path)
    assert (found.memory_bytes, found.available_bytes) == (67108864, min(67107840, found.available_bytes))
