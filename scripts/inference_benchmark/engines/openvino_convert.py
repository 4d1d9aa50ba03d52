"""Exports a checkpoint for OpenVINO. Runs as a separate process, once per checkpoint and kind of weights."""

from __future__ import annotations

import json
import sys

from inference_benchmark.engines.conversion import report

#: Precisions with weights that NNCF compresses, without data: the bits of each, with the settings that
#: ``optimum-cli export openvino --weight-format`` has for them.
COMPRESSED = {"int8": 8, "int4": 4}


def main(request: str) -> int:
    """request: JSON with checkpoint, output, a folder that does not exist, and weights, fp32 or one of COMPRESSED."""
    import torch
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

    arguments = json.loads(request)
    print(f"exporting {arguments['checkpoint']} for openvino", file=sys.stderr)
    bits = COMPRESSED.get(arguments["weights"])
    adjust = {"group_size_fallback": "adjust"} if bits == 4 else {}  # where 128 does not divide the inputs
    try:
        model = OVModelForCausalLM.from_pretrained(
            arguments["checkpoint"],
            export=True,
            compile=False,
            torch_dtype=torch.float32,
            load_in_8bit=False,  # None would be 8 bits from a billion parameters on
            quantization_config=OVWeightQuantizationConfig(bits=bits, **adjust) if bits else None,
        )
        model.save_pretrained(arguments["output"])
    except Exception as error:  # the exporter raises many kinds of errors for unsupported models
        return report(error, "openvino cannot export this model")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
