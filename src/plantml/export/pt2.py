"""The deployed network as an archive of `torch.export`, for programs that are torch already."""

from plantml.export.onnx import example_inputs, notes_of, quiet
from plantml.model import torch_programs
from plantml.model.contract import Contract


def to_pt2(contract: Contract, weights: bytes, digest: str) -> bytes:
    """The network of a contract and its safetensors weights as the bytes of a `.pt2` file.

    Its module takes `image`, uint8 [N, H, W, 3], and covariates if the model has any, as the ONNX file does; it gives a
    tuple: one tensor a target, the embedding, `unknown`.
    """
    import torch

    from plantml.model import detector, network

    deployed = detector.rebuild(contract, network.read_weights(weights))
    examples = tuple(example_inputs(contract.input, len(contract.covariates or ())).values())
    shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},) * len(examples)
    with quiet():
        program = torch.export.export(deployed, examples, dynamic_shapes=shapes)
    return torch_programs.pack(program, notes_of(contract, digest))
