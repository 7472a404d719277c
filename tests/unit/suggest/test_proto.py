"""The wire format is Katib's, number by number, and the stubs in the repository are those of the proto file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

import rankwise.katib_api
from rankwise.katib_api import api_pb2

PROTO = "rankwise/katib_api/api.proto"
STUBS = ("api_pb2.py", "api_pb2.pyi", "api_pb2_grpc.py")
ROOT = Path(__file__).resolve().parents[3]

# Katib v0.19: message -> field -> (number, type). [] repeated, {} a map of strings.
FIELDS = {
    "Experiment": {"name": (1, "string"), "spec": (2, "ExperimentSpec")},
    "ExperimentSpec": {
        "parameter_specs": (1, "ExperimentSpec.ParameterSpecs"),
        "objective": (2, "ObjectiveSpec"),
        "algorithm": (3, "AlgorithmSpec"),
        "early_stopping": (4, "EarlyStoppingSpec"),
        "parallel_trial_count": (5, "int32"),
        "max_trial_count": (6, "int32"),
        "nas_config": (7, "NasConfig"),
    },
    "ExperimentSpec.ParameterSpecs": {"parameters": (1, "ParameterSpec[]")},
    "ParameterSpec": {
        "name": (1, "string"),
        "parameter_type": (2, "ParameterType"),
        "feasible_space": (3, "FeasibleSpace"),
    },
    "FeasibleSpace": {
        "max": (1, "string"),
        "min": (2, "string"),
        "list": (3, "string[]"),
        "step": (4, "string"),
        "distribution": (5, "Distribution"),
    },
    "ObjectiveSpec": {
        "type": (1, "ObjectiveType"),
        "goal": (2, "double"),
        "objective_metric_name": (3, "string"),
        "additional_metric_names": (4, "string[]"),
    },
    "AlgorithmSpec": {"algorithm_name": (1, "string"), "algorithm_settings": (2, "AlgorithmSetting[]")},
    "AlgorithmSetting": {"name": (1, "string"), "value": (2, "string")},
    "EarlyStoppingSpec": {"algorithm_name": (1, "string"), "algorithm_settings": (2, "EarlyStoppingSetting[]")},
    "EarlyStoppingSetting": {"name": (1, "string"), "value": (2, "string")},
    "NasConfig": {"graph_config": (1, "GraphConfig"), "operations": (2, "NasConfig.Operations")},
    "NasConfig.Operations": {"operation": (1, "Operation[]")},
    "GraphConfig": {"num_layers": (1, "int32"), "input_sizes": (2, "int32[]"), "output_sizes": (3, "int32[]")},
    "Operation": {"operation_type": (1, "string"), "parameter_specs": (2, "Operation.ParameterSpecs")},
    "Operation.ParameterSpecs": {"parameters": (1, "ParameterSpec[]")},
    "ParameterAssignment": {"name": (1, "string"), "value": (2, "string")},
    "Trial": {"name": (1, "string"), "spec": (2, "TrialSpec"), "status": (3, "TrialStatus")},
    "TrialSpec": {
        "objective": (2, "ObjectiveSpec"),
        "parameter_assignments": (3, "TrialSpec.ParameterAssignments"),
        "labels": (4, "{}"),
    },
    "TrialSpec.ParameterAssignments": {"assignments": (1, "ParameterAssignment[]")},
    "TrialStatus": {
        "start_time": (1, "string"),
        "completion_time": (2, "string"),
        "condition": (3, "TrialStatus.TrialConditionType"),
        "observation": (4, "Observation"),
    },
    "Observation": {"metrics": (1, "Metric[]")},
    "Metric": {"name": (1, "string"), "value": (2, "string")},
    "MetricLog": {"time_stamp": (1, "string"), "metric": (2, "Metric")},
    "ObservationLog": {"metric_logs": (1, "MetricLog[]")},
    "GetSuggestionsRequest": {
        "experiment": (1, "Experiment"),
        "trials": (2, "Trial[]"),
        "current_request_number": (4, "int32"),
        "total_request_number": (5, "int32"),
    },
    "GetSuggestionsReply": {
        "parameter_assignments": (1, "GetSuggestionsReply.ParameterAssignments[]"),
        "algorithm": (2, "AlgorithmSpec"),
        "early_stopping_rules": (3, "EarlyStoppingRule[]"),
    },
    "GetSuggestionsReply.ParameterAssignments": {
        "assignments": (1, "ParameterAssignment[]"),
        "trial_name": (2, "string"),
        "labels": (3, "{}"),
    },
    "ValidateAlgorithmSettingsRequest": {"experiment": (1, "Experiment")},
    "ValidateAlgorithmSettingsReply": {},
    "EarlyStoppingRule": {
        "name": (1, "string"),
        "value": (2, "string"),
        "comparison": (3, "ComparisonType"),
        "start_step": (4, "int32"),
    },
    "GetEarlyStoppingRulesRequest": {
        "experiment": (1, "Experiment"),
        "trials": (2, "Trial[]"),
        "db_manager_address": (3, "string"),
    },
    "GetEarlyStoppingRulesReply": {"early_stopping_rules": (1, "EarlyStoppingRule[]")},
    "ValidateEarlyStoppingSettingsRequest": {"early_stopping": (1, "EarlyStoppingSpec")},
    "ValidateEarlyStoppingSettingsReply": {},
    "SetTrialStatusRequest": {"trial_name": (1, "string")},
    "SetTrialStatusReply": {},
    "ReportObservationLogRequest": {"trial_name": (1, "string"), "observation_log": (2, "ObservationLog")},
    "ReportObservationLogReply": {},
    "GetObservationLogRequest": {
        "trial_name": (1, "string"),
        "metric_name": (2, "string"),
        "start_time": (3, "string"),
        "end_time": (4, "string"),
    },
    "GetObservationLogReply": {"observation_log": (1, "ObservationLog")},
    "DeleteObservationLogRequest": {"trial_name": (1, "string")},
    "DeleteObservationLogReply": {},
}

ENUMS = {
    "ParameterType": {"UNKNOWN_TYPE": 0, "DOUBLE": 1, "INT": 2, "DISCRETE": 3, "CATEGORICAL": 4},
    "Distribution": {"DISTRIBUTION_UNSPECIFIED": 0, "UNIFORM": 1, "LOG_UNIFORM": 2, "NORMAL": 3, "LOG_NORMAL": 4},
    "ObjectiveType": {"UNKNOWN": 0, "MINIMIZE": 1, "MAXIMIZE": 2},
    "ComparisonType": {"UNKNOWN_COMPARISON": 0, "EQUAL": 1, "LESS": 2, "GREATER": 3},
    "TrialStatus.TrialConditionType": {
        "CREATED": 0,
        "RUNNING": 1,
        "SUCCEEDED": 2,
        "KILLED": 3,
        "FAILED": 4,
        "METRICSUNAVAILABLE": 5,
        "EARLYSTOPPED": 6,
        "UNKNOWN": 7,
    },
}

METHODS = {
    "Suggestion": ["GetSuggestions", "ValidateAlgorithmSettings"],
    "EarlyStopping": ["GetEarlyStoppingRules", "SetTrialStatus", "ValidateEarlyStoppingSettings"],
    "DBManager": ["ReportObservationLog", "GetObservationLog", "DeleteObservationLog"],
}


def described() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto()
    api_pb2.DESCRIPTOR.CopyToProto(file)
    return file


def type_of(field: descriptor_pb2.FieldDescriptorProto) -> str:
    if field.type_name.endswith(".LabelsEntry"):
        return "{}"
    kind = field.type_name.removeprefix(".api.v1.beta1.") or field.Type.Name(field.type).removeprefix("TYPE_").lower()
    return kind + ("[]" if field.label == field.LABEL_REPEATED else "")


def walk(messages: list[descriptor_pb2.DescriptorProto], above: str = "") -> dict[str, descriptor_pb2.DescriptorProto]:
    found = {}
    for message in messages:
        found[above + message.name] = message
        found |= walk(list(message.nested_type), f"{above}{message.name}.")
    return found


def test_every_message_field_number_and_type_is_katibs() -> None:
    found = {
        name: {field.name: (field.number, type_of(field)) for field in message.field}
        for name, message in walk(list(described().message_type)).items()
        if not message.options.map_entry
    }
    assert found == FIELDS


def test_labels_are_maps_of_strings() -> None:
    entries = {name: m for name, m in walk(list(described().message_type)).items() if m.options.map_entry}
    assert entries.keys() == {"TrialSpec.LabelsEntry", "GetSuggestionsReply.ParameterAssignments.LabelsEntry"}
    for message in entries.values():
        assert [(field.number, type_of(field)) for field in message.field] == [(1, "string"), (2, "string")]


def test_every_enum_value_is_katibs() -> None:
    file = described()
    enums = {enum.name: enum for enum in file.enum_type}
    for name, message in walk(list(file.message_type)).items():
        enums |= {f"{name}.{enum.name}": enum for enum in message.enum_type}
    assert {name: {value.name: value.number for value in enum.value} for name, enum in enums.items()} == ENUMS


def test_services_and_methods_are_katibs() -> None:
    file = described()
    assert file.package == "api.v1.beta1"
    assert {service.name: [method.name for method in service.method] for service in file.service} == METHODS
    for service in file.service:
        for method in service.method:
            assert method.input_type == f".api.v1.beta1.{method.name}Request"
            assert method.output_type == f".api.v1.beta1.{method.name}Reply"
            assert not method.client_streaming
            assert not method.server_streaming


def test_a_message_of_known_bytes_is_read() -> None:
    # Written by hand: field 1 (Experiment: field 1 "e"), field 4 = 3, field 5 = 7. Tag = number * 8 + wire type.
    data = bytes([0x0A, 0x03, 0x0A, 0x01, ord("e"), 0x20, 0x03, 0x28, 0x07])
    message = api_pb2.GetSuggestionsRequest.FromString(data)
    assert message.experiment.name == "e"
    assert (message.current_request_number, message.total_request_number) == (3, 7)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stubs")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT / 'katib' / 'proto'}"]
    command += [f"--{kind}={folder}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    subprocess.run([*command, PROTO], check=True, capture_output=True, text=True)
    return folder / "rankwise" / "katib_api"


@pytest.mark.parametrize("name", STUBS)
def test_stubs_are_those_of_the_proto_file(generated: Path, name: str) -> None:
    committed = Path(rankwise.katib_api.__file__).parent / name
    assert (generated / name).read_text() == committed.read_text(), "see katib/proto/README.md for how to make them"


def test_nothing_else_is_generated(generated: Path) -> None:
    assert sorted(path.name for path in generated.iterdir()) == sorted(STUBS)


def test_the_documented_command_makes_these_stubs() -> None:
    text = (ROOT / "katib" / "proto" / "README.md").read_text()
    command = re.search(r"```\n(.*?)```", text, re.DOTALL)
    assert command is not None
    words = command[1].replace("\\\n", " ").split()
    assert words[:3] == ["python", "-m", "grpc_tools.protoc"]
    assert {"--proto_path=katib/proto", f"katib/proto/{PROTO}"} <= set(words)
    assert {f"--{kind}=components" for kind in ("python_out", "pyi_out", "grpc_python_out")} <= set(words)


def test_stubs_import_absolutely() -> None:
    text = (Path(rankwise.katib_api.__file__).parent / "api_pb2_grpc.py").read_text()
    assert "from rankwise.katib_api import api_pb2" in text
