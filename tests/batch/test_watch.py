import threading
import time

from diffmf_cli.batch.job import Job
from diffmf_cli.batch.table import PairTable
from diffmf_cli.batch.watch import watch_jobs


def make_jobs(tmp_path, *keys):
    return [
        Job(key, str(tmp_path / f"{key}_ir"), str(tmp_path / f"{key}_vis"), str(tmp_path / f"{key}_out"), key)
        for key in keys
    ]


def taken(jobs, **options):
    found = []
    for job in watch_jobs(lambda: PairTable(jobs), interval=0.05, **options):
        if job is None:
            time.sleep(0.005)
        else:
            found.append(job.key)
    return found


def fill(job, text="whole"):
    for path in (job.ir, job.vis):
        with open(path, "a") as file:
            file.write(text)


def test_whole_pairs_are_taken_once_and_empty_ones_never(tmp_path):
    jobs = make_jobs(tmp_path, "a", "b")
    fill(jobs[0])
    fill(jobs[1], "")
    assert taken(jobs, until_idle=0.3) == ["a"]


def test_a_file_that_grows_is_left_until_it_stops(tmp_path):
    (job,) = make_jobs(tmp_path, "a")
    fill(job)
    sizes = []

    def grow():
        for _ in range(12):
            with open(job.vis, "a") as file:
                file.write("more")
            time.sleep(0.03)
        sizes.append("complete")

    writer = threading.Thread(target=grow)
    writer.start()
    for found in watch_jobs(lambda: PairTable([job]), interval=0.1, until_idle=1):
        if found is not None:
            sizes.append("taken")
            break
        time.sleep(0.005)
    writer.join()
    assert sizes == ["complete", "taken"]


def test_a_failed_pair_is_taken_again_when_its_files_change(tmp_path):
    (job,) = make_jobs(tmp_path, "a")
    fill(job)
    threading.Timer(0.4, fill, [job]).start()
    assert taken([job], until_idle=0.8) == ["a", "a"]


def test_a_done_pair_is_not_taken_again(tmp_path):
    (job,) = make_jobs(tmp_path, "a")
    fill(job)
    found = []
    for item in watch_jobs(lambda: PairTable([job]), interval=0.05, until_idle=0.5):
        if item is not None:
            found.append(item.key)
            open(job.output, "w").close()
            threading.Timer(0.15, fill, [job]).start()
        time.sleep(0.005)
    assert found == ["a"]
