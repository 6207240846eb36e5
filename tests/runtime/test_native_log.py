"""ONNX Runtime's own messages, as met, and what is made of them."""

import os

import pytest

from edgecv.runtime.native_log import capture_stderr, cause, plain_message

# Word for word from onnxruntime-gpu 1.31.1 on a machine without CUDA, the folder shortened.
NO_CUBLAS = (
    "\x1b[1;31m2026-11-21 23:16:51.985785591 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] "
    "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& "
    "onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library "
    "/site-packages/onnxruntime/capi/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open "
    "shared object file: No such file or directory\n\x1b[m\n"
    "\x1b[0;93m2026-11-21 23:16:51.985834099 [W:onnxruntime:Default, onnxruntime_pybind_state.cc:1295 "
    "CreateExecutionProviderFactoryInstance] Failed to create CUDAExecutionProvider. Require cuDNN 9.* and CUDA 13.*."
    "\x1b[m\n"
)
OPSET = (
    "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/graph/model_load_utils.h:46 void "
    "onnxruntime::model_load_utils::ValidateOpsetForDomain(const std::unordered_map<std::__cxx11::basic_string<char>, "
    "int>&, const onnxruntime::logging::Logger&, bool, const std::string&, int) ONNX Runtime only *guarantees* support "
    "for models stamped with official released onnx opset versions."
)
INITIALIZER = (
    "[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: /onnxruntime_src/onnxruntime/core/optimizer/"
    "initializer.cc:51 onnxruntime::Initializer::Initializer(const onnx::TensorProto&, const std::filesystem::"
    "__cxx11::path&) [ONNXRuntimeError] : 1 : FAIL : tensorprotoutils.cc:1534 "
    "ValidateEmbeddedTensorProtoDataSizeAndShape Initializer 'scale': raw_data size (2 bytes) does not match"
)


def write_raw(text: str) -> None:
    os.write(2, text.encode())


def test_missing_library_is_named() -> None:
    with capture_stderr() as log:
        write_raw(NO_CUBLAS)
    assert cause(log.text) == "libcublasLt.so.13 is missing"


def test_driver_error_is_named() -> None:
    text = (
        "EP Error CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 ; hostname=x"
    )
    assert cause(text) == "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"


def test_first_error_is_the_cause_when_no_library_is_named_and_warnings_are_not() -> None:
    warning = "2026-01-01 00:00:00.1 [W:onnxruntime:, a.cc:1 F] harmless\n"
    error = "2026-01-01 00:00:00.2 [E:onnxruntime:, b.cc:2 G] no backend\n"
    assert cause(warning + error) == "no backend"
    assert cause(warning) == ""


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (OPSET, "ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions"),
        (INITIALIZER, "Initializer 'scale': raw_data size (2 bytes) does not match"),
        (
            "[ONNXRuntimeError] : 10 : INVALID_GRAPH : This is an invalid model. Error No Op",
            "This is an invalid model. Error No Op",
        ),
        ("plain words", "plain words"),
    ],
)
def test_codes_places_and_signatures_are_stripped(text: str, plain: str) -> None:
    assert plain_message(text) == plain


def test_lines_of_others_are_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with capture_stderr():
        write_raw("the application's own line\n" + NO_CUBLAS)
    assert capfd.readouterr().err == "the application's own line\n"


def test_stderr_is_whole_again_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), capture_stderr():
        raise KeyError
    write_raw("after\n")
    assert capfd.readouterr().err == "after\n"


def test_process_without_stderr_can_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with capture_stderr() as log:
        os.write(2, b"2026-11-21 23:16:51.9 [E:onnxruntime:Default, a.cc:1 f] wrong\n")
    assert "wrong" in log.text
