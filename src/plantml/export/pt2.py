"""The deployed network as an archive of `torch.export`, for programs that are torch already."""

from plantml.export.onnx import notes_of, quiet
from plantml.model import torch_programs
from plantml.model.contract import Contract


def to_pt2(contract: Contract, weights: bytes, digest: str) -> bytes:
    """The network of a contract and its safetensors weights as the bytes of a `.pt2` file.

    Its module takes `image`, uint8 [N, H, W, 3], and gives a tuple: one tensor a target, the embedding, `unknown`.
    """
    import torch

    from plantml.model import detector, network

    deployed = detector.rebuild(contract, network.read_weights(weights))
    example = torch.zeros((2, contract.input.height, contract.input.width, 3), dtype=torch.uint8)
    shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    with quiet():
        program = torch.export.export(deployed, (example,), dynamic_shapes=shapes)
    return torch_programs.pack(program, notes_of(contract, digest))
