from __future__ import annotations

import pytest
from pydantic import ValidationError

from isosr_cluster.slurm.site import Resources, Site, Workers, walltime_text

CPU = {"cores": 4, "memory": "16 GB", "walltime": "12:00:00"}
GPU = {**CPU, "gpus": 2, "walltime": "1-00:00:00"}


@pytest.mark.parametrize(
    ("text", "size"),
    [("64 GB", 64 * 2**30), ("1.5G", 3 * 2**29), ("900M", 900 * 2**20), ("2 TiB", 2**41)],
)
def test_memory_is_as_slurm_means_it(text, size):
    assert Resources(**{**CPU, "memory": text}).memory == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:01:00", 60), ("12:30:00", 45000), ("2-01:00:00", 176400)]
)
def test_walltimes_are_read_and_written(text, seconds):
    found = Resources(**{**CPU, "walltime": text})
    assert found.walltime == seconds
    assert Resources(**{**CPU, "walltime": walltime_text(seconds)}) == found


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"memory": 64}, "a number and a unit"),
        ({"memory": "64"}, "a number and a unit"),
        ({"memory": "1K"}, "greater than or equal"),
        ({"walltime": 60}, "hours:minutes:seconds"),
        ({"walltime": "90"}, "hours:minutes:seconds"),
        ({"walltime": "00:00:30"}, "at least 60 seconds"),
        ({"cores": 0}, "greater than 0"),
        ({"partition": "a b"}, "pattern"),
        ({"account": "x;rm"}, "pattern"),
        ({"constraint": "a\nb"}, "printable"),
        ({"directives": ["--x\n#SBATCH --y"]}, "printable"),
        ({"directives": ["--time=06:00:00"]}, "--time=06:00:00 is what walltime is for"),
        ({"directives": ["--exclude=n1 --time 60"]}, "--time is what walltime is for"),
        ({"directives": ["--time-min=60"]}, "--time-min=60 is what walltime is for"),
        ({"directives": ["-t60"]}, "-t60 is what walltime is for"),
        ({"gpu_type": "a100"}, "without gpus"),
        ({"partitions": "gpu"}, "Extra inputs"),
        ({"processes": 5}, "cores is 4, and a job has 5"),
        ({"gpus": 2, "processes": 1}, "leave processes out"),
    ],
)
def test_what_no_job_can_be_is_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        Workers(**{**CPU, **keys})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "neither cpu nor gpu"),
        ({"gpu": CPU}, "gpu.gpus is 0"),
        ({"cpu": GPU}, "describe those jobs as gpu"),
        ({"cpu": CPU, "notice": 3600, "driver": {**CPU, "walltime": "01:00:00"}}, "more walltime"),
        ({"cpu": CPU, "interface": "ib0; x"}, "pattern"),
        ({"cpu": CPU, "setup": ["a\nb"]}, "printable"),
        ({"cpu": CPU, "directives": ["--time=1"]}, "--time=1 is what walltime is for"),
        ({"cpu": CPU, "notice": 5}, "greater than or equal"),
        ({"cpu": CPU, "gpus": 3}, "Extra inputs"),
    ],
)
def test_what_no_site_can_be_is_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        Site(**keys)


def test_a_job_has_a_worker_for_each_gpu_or_core():
    assert Workers(**CPU).per_job == 4
    assert Workers(**CPU, processes=2).per_job == 2
    assert Workers(**GPU).per_job == 2


def test_drivers_are_small_jobs_like_those_of_workers_unless_described():
    site = Site(cpu={**CPU, "partition": "short", "qos": "q"}, gpu=GPU)
    assert site.leading.partition == "short"
    assert (site.leading.cores, site.leading.memory) == (2, 8 * 2**30)
    lead = Site(gpu={**GPU, "gpu_type": "a100"}).leading
    assert (lead.gpus, lead.gpu_type) == (0, None)
    driver = {**CPU, "partition": "long"}
    assert Site(cpu=CPU, driver=driver).leading == Resources(**driver)


def test_jobs_ask_for_what_is_described():
    site = Site(
        account="lab", gpu={**GPU, "gpu_type": "a100", "constraint": "a&b"}, directives=["--nice"]
    )
    asked = list(site.options(site.gpu))
    assert asked[:3] == ["--nodes=1", "--ntasks=1", "--cpus-per-task=4"]
    assert set(asked) > {"--mem=16384M", "--time=1-00:00:00", "--account=lab", "--nice"}
    assert set(asked) > {"--gres=gpu:a100:2", '--constraint="a&b"'}
    own = Site(account="lab", cpu={**CPU, "account": "other"})
    assert "--account=other" in own.options(own.cpu)
    assert not any("gres" in option for option in own.options(own.cpu))


def test_a_site_reads_back_from_what_it_is_written_as():
    site = Site(cpu=CPU, gpu={**GPU, "memory": "1.3 GB"}, scratch="/scratch/$USER")
    assert Site.model_validate(site.model_dump(mode="json")) == site
