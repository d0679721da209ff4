from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DialStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNUSED: _ClassVar[DialStatus]
    E_DIAL_ERROR: _ClassVar[DialStatus]
    E_DIAL_BACK_ERROR: _ClassVar[DialStatus]
    OK: _ClassVar[DialStatus]
UNUSED: DialStatus
E_DIAL_ERROR: DialStatus
E_DIAL_BACK_ERROR: DialStatus
OK: DialStatus

class Message(_message.Message):
    __slots__ = ("dial_request", "dial_response", "dial_data_request", "dial_data_response")
    DIAL_REQUEST_FIELD_NUMBER: _ClassVar[int]
    DIAL_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    DIAL_DATA_REQUEST_FIELD_NUMBER: _ClassVar[int]
    DIAL_DATA_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    dial_request: DialRequest
    dial_response: DialResponse
    dial_data_request: DialDataRequest
    dial_data_response: DialDataResponse
    def __init__(self, dial_request: _Optional[_Union[DialRequest, _Mapping]] = ..., dial_response: _Optional[_Union[DialResponse, _Mapping]] = ..., dial_data_request: _Optional[_Union[DialDataRequest, _Mapping]] = ..., dial_data_response: _Optional[_Union[DialDataResponse, _Mapping]] = ...) -> None: ...

class DialRequest(_message.Message):
    __slots__ = ("addrs", "nonce", "padding")
    ADDRS_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    addrs: _containers.RepeatedScalarFieldContainer[bytes]
    nonce: int
    padding: bytes
    def __init__(self, addrs: _Optional[_Iterable[bytes]] = ..., nonce: _Optional[int] = ..., padding: _Optional[bytes] = ...) -> None: ...

class DialDataRequest(_message.Message):
    __slots__ = ("addr_idx", "num_bytes")
    ADDR_IDX_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    addr_idx: int
    num_bytes: int
    def __init__(self, addr_idx: _Optional[int] = ..., num_bytes: _Optional[int] = ...) -> None: ...

class DialDataResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class DialResponse(_message.Message):
    __slots__ = ("status", "addr_idx", "dial_status")
    class ResponseStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        E_INTERNAL_ERROR: _ClassVar[DialResponse.ResponseStatus]
        E_REQUEST_REJECTED: _ClassVar[DialResponse.ResponseStatus]
        E_DIAL_REFUSED: _ClassVar[DialResponse.ResponseStatus]
        OK: _ClassVar[DialResponse.ResponseStatus]
    E_INTERNAL_ERROR: DialResponse.ResponseStatus
    E_REQUEST_REJECTED: DialResponse.ResponseStatus
    E_DIAL_REFUSED: DialResponse.ResponseStatus
    OK: DialResponse.ResponseStatus
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ADDR_IDX_FIELD_NUMBER: _ClassVar[int]
    DIAL_STATUS_FIELD_NUMBER: _ClassVar[int]
    status: DialResponse.ResponseStatus
    addr_idx: int
    dial_status: DialStatus
    def __init__(self, status: _Optional[_Union[DialResponse.ResponseStatus, str]] = ..., addr_idx: _Optional[int] = ..., dial_status: _Optional[_Union[DialStatus, str]] = ...) -> None: ...

class DialBack(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class DialBackResponse(_message.Message):
    __slots__ = ("status",)
    class DialBackStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OK: _ClassVar[DialBackResponse.DialBackStatus]
    OK: DialBackResponse.DialBackStatus
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: DialBackResponse.DialBackStatus
    def __init__(self, status: _Optional[_Union[DialBackResponse.DialBackStatus, str]] = ...) -> None: ...
