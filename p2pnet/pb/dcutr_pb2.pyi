from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HolePunch(_message.Message):
    __slots__ = ("type", "obs_addrs", "birthday", "swift", "dials")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNUSED: _ClassVar[HolePunch.Type]
        CONNECT: _ClassVar[HolePunch.Type]
        SYNC: _ClassVar[HolePunch.Type]
    UNUSED: HolePunch.Type
    CONNECT: HolePunch.Type
    SYNC: HolePunch.Type
    class Side(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[HolePunch.Side]
        EASY: _ClassVar[HolePunch.Side]
        HARD: _ClassVar[HolePunch.Side]
    NONE: HolePunch.Side
    EASY: HolePunch.Side
    HARD: HolePunch.Side
    class Swift(_message.Message):
        __slots__ = ("waited", "hidden", "heard")
        WAITED_FIELD_NUMBER: _ClassVar[int]
        HIDDEN_FIELD_NUMBER: _ClassVar[int]
        HEARD_FIELD_NUMBER: _ClassVar[int]
        waited: int
        hidden: int
        heard: bool
        def __init__(self, waited: _Optional[int] = ..., hidden: _Optional[int] = ..., heard: bool = ...) -> None: ...
    TYPE_FIELD_NUMBER: _ClassVar[int]
    OBS_ADDRS_FIELD_NUMBER: _ClassVar[int]
    BIRTHDAY_FIELD_NUMBER: _ClassVar[int]
    SWIFT_FIELD_NUMBER: _ClassVar[int]
    DIALS_FIELD_NUMBER: _ClassVar[int]
    type: HolePunch.Type
    obs_addrs: _containers.RepeatedScalarFieldContainer[bytes]
    birthday: HolePunch.Side
    swift: HolePunch.Swift
    dials: bool
    def __init__(self, type: _Optional[_Union[HolePunch.Type, str]] = ..., obs_addrs: _Optional[_Iterable[bytes]] = ..., birthday: _Optional[_Union[HolePunch.Side, str]] = ..., swift: _Optional[_Union[HolePunch.Swift, _Mapping]] = ..., dials: bool = ...) -> None: ...
