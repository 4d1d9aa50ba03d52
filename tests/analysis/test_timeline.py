"""Steps and kinds of work, worked out by hand."""

from __future__ import annotations

import random

import pytest

from inference_benchmark.analysis.timeline import (
    KINDS,
    Profile,
    Timeline,
    Work,
    kind_of,
    profile_result,
    seconds_by_name,
)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            "products",
            [
                "aten::mm",
                "aten::addmm",
                "aten::_int_mm",
                "aten::_weight_int8pack_mm",
                "mkldnn::_linear_pointwise",
                "bitsandbytes::int8_scaled_mm",
                "bitsandbytes::int8_linear_matmul",
                "MatMul8bitLt",
                "ampere_sgemm_128x64_tn",
                "sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64",
                "nvjet_tst_64x8_64x16_4x1_v_bz_TNT",
                "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_64x64_64x6_tn_align8>",
                "void gemvNSP_kernel<float, float, float, float, 1, 32, 4, 1024>",
                "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>",
                "void kgemm_4bit_inference_naive<__nv_bfloat16, 128, 16>",
            ],
        ),
        (
            "attention",
            [
                "aten::bmm",
                "aten::baddbmm",
                "aten::_softmax",
                "aten::_scaled_dot_product_flash_attention_for_cpu",
                "void pytorch_flash::flash_fwd_splitkv_kernel<...>",
                "fmha_cutlassF_bf16_aligned_64x64_rf_sm80",
                "void (anonymous namespace)::softmax_warp_forward<float, float, float, 5, false, false>",
            ],
        ),
        (
            "quantising",
            [
                "bitsandbytes::int8_vectorwise_quant",
                "bitsandbytes::int8_mm_dequant",
                "bitsandbytes::dequantize_4bit",
                "void kInt8VectorQuant<__half, 1024, 1>",
                "void kDequantizeBlockwise<__nv_bfloat16, 512, 64, 8, 2>",
                "torchao::quantize_affine",
            ],
        ),
        (
            "copies",
            [
                "aten::copy_",
                "aten::cat",
                "aten::index_select",
                "Memcpy DtoH (Device -> Pageable)",
                "Memset (Device)",
                "void at::native::(anonymous namespace)::CatArrayBatchedCopy<...>",
                "void at::native::elementwise_kernel<128, 4, direct_copy_kernel_cuda>",
            ],
        ),
        (
            "other",
            [
                "aten::native_layer_norm",
                "aten::mul",
                "aten::tanh",
                "aten::argmax",
                "GeLUFunction",
                "## Call CompiledFxGraph fabc ##",
                "triton_poi_fused_add_mul_tanh_3",
                "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>",
            ],
        ),
        (
            "outside",
            [
                "aten::view",
                "aten::linear",
                "aten::empty_strided",
                "aten::to",
                "cudaLaunchKernel",
                "TorchDynamo Cache Lookup",
                "Torch-Compiled Region: 0/0",
            ],
        ),
    ],
)
def test_names_of_a_profile_have_kinds(kind, names):
    assert {name: kind_of(name) for name in names} == dict.fromkeys(names, kind)


def test_a_moment_belongs_to_the_operator_that_began_last():
    work = [
        Work("aten::linear", 0, 10),
        Work("aten::addmm", 1, 7),
        Work("aten::copy_", 2, 3),
        Work("aten::mul", 8, 9),
        Work("aten::add", 12, 14),
    ]
    assert seconds_by_name(work) == {
        ("outside", "aten::linear"): 3,
        ("products", "aten::addmm"): 5,
        ("copies", "aten::copy_"): 1,
        ("other", "aten::mul"): 1,
        ("other", "aten::add"): 2,
    }


def test_what_an_operator_calls_to_quantise_is_quantising():
    work = [
        Work("bitsandbytes::int8_vectorwise_quant", 0, 10),
        Work("aten::max", 1, 4),
        Work("aten::copy_", 2, 3),
        Work("aten::max", 11, 12),
    ]
    by_name = seconds_by_name(work)
    assert by_name["quantising", "aten::max"] == 2
    assert by_name["quantising", "aten::copy_"] == 1
    assert by_name["other", "aten::max"] == 1


def test_kernels_that_overlap_are_counted_once():
    work = [Work("a", 0, 4), Work("b", 2, 6), Work("c", 3, 3.5), Work("d", 8, 9)]
    assert seconds_by_name(work) == {("other", "a"): 2, ("other", "b"): 3.5, ("other", "c"): 0.5, ("other", "d"): 1}


def test_all_seconds_add_up_to_the_time_in_which_anything_ran():
    draw = random.Random(1)
    for _ in range(200):
        begins = [draw.randrange(40) for _ in range(draw.randrange(1, 12))]
        work = [Work(draw.choice("abc"), at, at + draw.randrange(1, 15)) for at in begins]
        covered = {moment for each in work for moment in range(each.begins_s, each.ends_s)}
        assert sum(seconds_by_name(work).values()) == len(covered)


def test_a_kernel_is_of_the_kind_of_the_operator_that_launched_it():
    gemm = "ampere_sgemm_128x64_tn"
    assert Work(gemm, 0, 1, "aten::bmm").kind == "attention"
    assert Work(gemm, 0, 1, "aten::linear").kind == "products"
    assert Work(gemm, 0, 1).kind == "products"
    assert (
        Work("void at::native::reduce_kernel<512, 1>", 0, 1, "bitsandbytes::int8_vectorwise_quant").kind == "quantising"
    )


def results(**parts):
    steps = {"step_s": [[0.4, 0.1, 0.1, 0.2], [0.6, 0.1, 0.3, 0.2]], "plain_s": [0.8, 1.0], "observed_s": [0.9, 1.35]}
    profile = profile_result(Profile(1.5, [Work("aten::mm", 0, 0.25), Work("aten::bmm", 0.5, 0.75)]), 3)
    return [
        {"kind": "steps", **steps, **parts},
        {"kind": "memory", "bytes": [100, 110, 120, 150]},
        profile,
    ]


def test_the_figures_of_a_timeline():
    timeline = Timeline.of(results())
    assert timeline.step_s == pytest.approx((0.5, 0.1, 0.2, 0.2))
    assert timeline.call_s == pytest.approx(1.0)
    assert timeline.decode_percentile_s(50) == pytest.approx(0.15)
    assert timeline.memory_growth_bytes == 50
    assert timeline.observing_cost == pytest.approx(1.125 / 0.9 - 1)
    # Of the three profiled steps, which take 0.8 s without a profile.
    assert timeline.profiling_cost == pytest.approx(1.5 / 0.8 - 1)
    assert timeline.shares == pytest.approx(
        {"products": 0.3125, "attention": 0.3125, "quantising": 0, "copies": 0, "other": 0, "outside": 0.375}
    )
    assert list(timeline.shares) == list(KINDS)


def test_the_parts_add_up_where_kernels_take_longer_than_the_steps():
    slow = profile_result(Profile(4, [Work("aten::mm", 0, 1), Work("aten::mul", 1, 4)]), 4)
    shares = Timeline.of([*results()[:1], slow]).shares
    assert shares == pytest.approx(
        {"products": 0.25, "other": 0.75, "attention": 0, "quantising": 0, "copies": 0, "outside": 0}
    )


def test_without_a_profile_and_memory_there_are_steps_alone():
    timeline = Timeline.of(results()[:1])
    assert timeline.shares is timeline.profiling_cost is timeline.memory_growth_bytes is None


@pytest.mark.parametrize(("n_steps", "growth"), [(100, 0.4), (5000, 0.4), (5, None)])
def test_growth_is_from_the_first_decode_step_to_the_last(n_steps, growth):
    """Steps from 0.8 to 1.2 times their median, with an outlier that decides nothing."""
    n = n_steps - 1
    steps = [9.0, *(0.8 + 0.4 * i / (n - 1) for i in range(n))]
    steps[n // 2] = 50
    found = Timeline.of(results(step_s=[steps])[:1]).growth
    assert found == (None if growth is None else pytest.approx(growth, rel=0.05))


def test_a_single_step_has_no_decoding():
    timeline = Timeline.of(results(step_s=[[0.5], [0.7]])[:1])
    assert (timeline.step_s, timeline.decode_s, timeline.growth) == ((0.6,), (), None)
    assert timeline.decode_percentile_s(99) is None
