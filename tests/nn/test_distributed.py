"""Rows of several processes: two on one machine, over gloo."""

import time
import warnings

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from scmamba_scvi.nn import info_nce
from scmamba_scvi.nn.distributed import copy_from_rank_0, gather_rows, rank, world_size

SIZES = (5, 3)


def on_rank(number, folder):
    warnings.simplefilter("error", FutureWarning)  # of what torch will drop
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=len(SIZES))
    assert (rank(), world_size()) == (number, len(SIZES))
    x = torch.load(f"{folder}/x.pt")
    weight = torch.full((4, 4), float(number + 1))
    copy_from_rank_0([weight])
    mine = x.split(SIZES)[number].requires_grad_()
    rows = gather_rows(mine)
    loss = loss_of(rows, weight)
    loss.backward()
    torch.save({"rows": rows.detach(), "loss": loss.detach(), "grad": mine.grad}, f"{folder}/{number}.pt")
    dist.barrier()  # a rank that has left may keep the other waiting for the end of its connection
    # torch before 2.8 waits for gloo's thread with the GIL held, while that thread may need the GIL to free a tensor of the
    # last operation (pytorch/pytorch#154976): let it finish first
    time.sleep(0.2)
    dist.destroy_process_group()


def loss_of(rows, weight):
    return info_nce(rows, rows.flip(1) @ weight, 0.5)


def test_loss_over_the_rows_of_two_processes_and_its_gradient(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(sum(SIZES), 4)
    torch.save(x, tmp_path / "x.pt")
    mp.spawn(on_rank, (str(tmp_path),), nprocs=len(SIZES))
    expected = x.clone().requires_grad_()
    loss = loss_of(expected, torch.ones(4, 4))
    loss.backward()
    found = [torch.load(tmp_path / f"{number}.pt") for number in range(len(SIZES))]
    for of_rank in found:
        torch.testing.assert_close(of_rank["rows"], x)
        torch.testing.assert_close(of_rank["loss"], loss.detach())
    # each of the two losses sends this gradient back; averaging the gradients of the ranks halves the sum again
    torch.testing.assert_close(torch.cat([of_rank["grad"] for of_rank in found]) / 2, expected.grad)


def test_one_process_keeps_its_rows():
    x = torch.randn(3, 2)
    assert (rank(), world_size()) == (0, 1) and gather_rows(x) is x
