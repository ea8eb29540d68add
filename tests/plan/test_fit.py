"""A sweep that does not fit is reported with its memory and with settings that fit."""

from typing import Any

from safecomm.plan.fit import check_finetune, check_fleet
from safecomm.plan.memory import GIB, Serving
from safecomm.plan.shapes import find_shape
from safecomm.spec import Finetune
from safecomm.spec.cluster import Replicas

LLAMA_8B = find_shape("meta-llama/Llama-3.1-8B")
LLAMA_70B = find_shape("meta-llama/Llama-3.1-70B")
GPU = 80 * GIB


def finetune(**changes: Any) -> Finetune:
    return Finetune.model_validate({"data": ["lab-telecom"]} | changes)


def test_a_fine_tune_that_fits_is_told_with_what_it_needs() -> None:
    verdict = check_finetune(LLAMA_8B, finetune(), 2, GPU)
    assert verdict.fits == "yes"
    assert verdict.text.startswith("each of 2 fine-tuning workers needs about 26")
    assert verdict.text.endswith("on a GPU with 80.0 GiB")


def test_weights_that_no_gpu_holds_are_refused_with_settings_that_fit() -> None:
    verdict = check_finetune(LLAMA_70B, finetune(), 2, GPU)
    assert verdict.fits == "no"
    advice = "it would fit with finetune.zero: 3 and cluster.finetune.workers: 4, or with"
    assert advice in verdict.text
    assert check_finetune(LLAMA_70B, finetune(zero=3), 4, GPU).fits == "yes"


def test_activations_that_may_be_too_much_are_doubted_and_not_refused() -> None:
    verdict = check_finetune(LLAMA_8B, finetune(), 2, 24 * GIB)
    assert verdict.fits == "perhaps"
    assert verdict.text.endswith("it would fit with finetune.zero: 3, or with finetune.micro_batch_size: 4")
    assert check_finetune(LLAMA_8B, finetune(micro_batch_size=4), 2, 24 * GIB).fits == "yes"


def test_settings_that_are_there_already_are_not_advised() -> None:
    verdict = check_finetune(LLAMA_70B, finetune(zero=3, micro_batch_size=1), 2, GPU)
    assert "finetune.zero" not in verdict.text
    assert "finetune.micro_batch_size" not in verdict.text


def test_advised_workers_can_share_the_batch() -> None:
    verdict = check_finetune(LLAMA_70B, finetune(zero=3, batch_size=6, max_length=256), 3, 40 * GIB)
    assert "cluster.finetune.workers: 6" in verdict.text
    assert "micro" not in verdict.text


def test_a_model_that_nothing_helps_says_so() -> None:
    assert "use larger GPUs" in check_finetune(LLAMA_70B, finetune(batch_size=1), 1, 4 * GIB).text


def test_weights_too_large_for_the_gpus_there_are_may_go_to_the_nodes_memory() -> None:
    settings = {"zero": 3, "batch_size": 8, "max_length": 256}
    assert check_finetune(LLAMA_70B, finetune(**settings), 2, 24 * GIB).text.endswith("with finetune.offload: cpu")
    verdict = check_finetune(LLAMA_70B, finetune(**settings, offload="cpu"), 2, 24 * GIB)
    assert verdict.fits == "yes"
    assert verdict.text.endswith("on a GPU with 24.0 GiB, plus 197.5 GiB of RAM on a node with 2 of them")


def test_weights_on_a_disk_are_told_with_the_room_they_take_there() -> None:
    verdict = check_finetune(LLAMA_70B, finetune(zero=3, offload={"nvme": "/nvme"}), 16, 80 * GIB)
    assert verdict.text.endswith("of RAM on a node with 8 of them and 65.7 GiB of its disk")


def test_quantized_weights_are_not_advised_to_be_sharded() -> None:
    text = check_finetune(LLAMA_70B, finetune(quantize="nf4", batch_size=1), 1, 24 * GIB).text
    assert "use larger GPUs" in text


def test_an_engine_that_fits_tells_how_many_texts_run_at_a_time() -> None:
    verdict = check_fleet(Serving(LLAMA_8B, Replicas(), 2048, 16, ["q_proj", "v_proj"]), GPU)
    assert verdict.fits == "yes"
    assert verdict.text.endswith("sequences of 2048 tokens run concurrently")


def test_an_engine_too_large_for_its_gpu_is_refused_with_a_split_that_fits() -> None:
    verdict = check_fleet(Serving(LLAMA_70B, Replicas(), 2048), GPU, "cluster.judge")
    assert verdict.fits == "no"
    assert verdict.text.endswith("it would fit with cluster.judge.tensor_parallel: 2")
    split = Replicas(tensor_parallel=2)
    assert check_fleet(Serving(LLAMA_70B, split, 2048), GPU).fits == "yes"


def test_more_gpus_than_a_node_has_are_advised_as_pipeline_stages() -> None:
    verdict = check_fleet(Serving(LLAMA_70B, Replicas(), 2048), 16 * GIB)
    assert verdict.text.endswith("with cluster.target.tensor_parallel: 8 and cluster.target.pipeline_parallel: 2")


def test_a_length_whose_cache_is_too_large_is_advised_to_be_cut() -> None:
    verdict = check_fleet(Serving(LLAMA_8B, Replicas(), 131_072), 24 * GIB)
    assert verdict.text.endswith("tensor_parallel: 2, or with evaluate.max_model_len: 32768")
