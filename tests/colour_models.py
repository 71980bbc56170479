"""Networks that are made in milliseconds and really run: the mean colour of a photo, times a matrix for each target."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from plantml.export.onnx import serialised
from plantml.model import bundle


def graph(contract, digest, weights):
    """image uint8 [N, H, W, 3] → target.NAME [N, classes], embedding [N, 3], unknown [N].

    `weights` are float32 [3, classes] by target.
    """
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "places"], ["colour"], keepdims=0),
        helper.make_node("Div", ["colour", "white"], ["embedding"]),
        helper.make_node("ReduceMin", ["embedding", "last"], ["unknown"], keepdims=0),
    ]
    constants = {"places": np.array([1, 2]), "last": np.array([1]), "white": np.array([255], np.float32)}
    outputs = []
    for target in contract.targets:
        name = target.name
        constants[f"w.{name}"] = weights[name]
        nodes.append(helper.make_node("MatMul", ["embedding", f"w.{name}"], [f"logits.{name}"]))
        nodes.append(helper.make_node("Softmax", [f"logits.{name}"], [f"target.{name}"], axis=1))
        shape = ["N", len(target.classes)]
        outputs.append(helper.make_tensor_value_info(f"target.{name}", TensorProto.FLOAT, shape))
    outputs.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 3]))
    outputs.append(helper.make_tensor_value_info("unknown", TensorProto.FLOAT, ["N"]))
    size = contract.input
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", size.height, size.width, 3])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "colour", [image], outputs, initializers),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    helper.set_model_props(model, {bundle.CONTRACT_KEY: contract.canonical().decode(), bundle.DIGEST_KEY: digest})
    return serialised(model)
