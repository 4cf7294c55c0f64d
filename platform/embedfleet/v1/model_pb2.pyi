from embedfleet.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    EMBEDDER: _ClassVar[Role]
    RERANKER: _ClassVar[Role]

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    READY: _ClassVar[ModelState]
    NOT_READY: _ClassVar[ModelState]
ROLE_UNSPECIFIED: Role
EMBEDDER: Role
RERANKER: Role
MODEL_STATE_UNSPECIFIED: ModelState
READY: ModelState
NOT_READY: ModelState

class Model(_message.Message):
    __slots__ = ("name", "aliases", "role", "state", "message", "source", "revision", "contract_hash", "contract", "native_dimension", "default_dimension", "allowed_dimensions", "max_tokens", "max_items_per_request", "default_instruction", "allow_instruction_override", "output_types", "device", "dtype", "default_output_type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_HASH_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_FIELD_NUMBER: _ClassVar[int]
    NATIVE_DIMENSION_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_DIMENSION_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_PER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    ALLOW_INSTRUCTION_OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TYPES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_OUTPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    role: Role
    state: ModelState
    message: str
    source: str
    revision: str
    contract_hash: str
    contract: Contract
    native_dimension: int
    default_dimension: int
    allowed_dimensions: _containers.RepeatedScalarFieldContainer[int]
    max_tokens: int
    max_items_per_request: int
    default_instruction: str
    allow_instruction_override: bool
    output_types: _containers.RepeatedScalarFieldContainer[_common_pb2.OutputType]
    device: str
    dtype: str
    default_output_type: _common_pb2.OutputType
    def __init__(self, name: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ..., role: _Optional[_Union[Role, str]] = ..., state: _Optional[_Union[ModelState, str]] = ..., message: _Optional[str] = ..., source: _Optional[str] = ..., revision: _Optional[str] = ..., contract_hash: _Optional[str] = ..., contract: _Optional[_Union[Contract, _Mapping]] = ..., native_dimension: _Optional[int] = ..., default_dimension: _Optional[int] = ..., allowed_dimensions: _Optional[_Iterable[int]] = ..., max_tokens: _Optional[int] = ..., max_items_per_request: _Optional[int] = ..., default_instruction: _Optional[str] = ..., allow_instruction_override: _Optional[bool] = ..., output_types: _Optional[_Iterable[_Union[_common_pb2.OutputType, str]]] = ..., device: _Optional[str] = ..., dtype: _Optional[str] = ..., default_output_type: _Optional[_Union[_common_pb2.OutputType, str]] = ...) -> None: ...

class Contract(_message.Message):
    __slots__ = ("source", "revision", "weights_digest", "tokenizer_digest", "template", "pooling", "normalization", "weight_quantization")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    POOLING_FIELD_NUMBER: _ClassVar[int]
    NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    source: str
    revision: str
    weights_digest: str
    tokenizer_digest: str
    template: str
    pooling: str
    normalization: str
    weight_quantization: str
    def __init__(self, source: _Optional[str] = ..., revision: _Optional[str] = ..., weights_digest: _Optional[str] = ..., tokenizer_digest: _Optional[str] = ..., template: _Optional[str] = ..., pooling: _Optional[str] = ..., normalization: _Optional[str] = ..., weight_quantization: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class TokenizeRequest(_message.Message):
    __slots__ = ("model", "texts", "input_type", "instruction", "query", "truncation")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    model: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    input_type: _common_pb2.InputType
    instruction: str
    query: str
    truncation: _common_pb2.Truncation
    def __init__(self, model: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., input_type: _Optional[_Union[_common_pb2.InputType, str]] = ..., instruction: _Optional[str] = ..., query: _Optional[str] = ..., truncation: _Optional[_Union[_common_pb2.Truncation, str]] = ...) -> None: ...

class TokenizedText(_message.Message):
    __slots__ = ("ids", "truncated", "error")
    IDS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    truncated: bool
    error: _common_pb2.ItemError
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., truncated: _Optional[bool] = ..., error: _Optional[_Union[_common_pb2.ItemError, _Mapping]] = ...) -> None: ...

class TokenizeResponse(_message.Message):
    __slots__ = ("texts", "provenance")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedCompositeFieldContainer[TokenizedText]
    provenance: _common_pb2.Provenance
    def __init__(self, texts: _Optional[_Iterable[_Union[TokenizedText, _Mapping]]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ...) -> None: ...
