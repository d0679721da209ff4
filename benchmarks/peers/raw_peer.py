"""Plain blocking sockets as a benchmark peer: the most this machine does. See README.md."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

BLOCK = bytes(256 * 1024)
ECHO, SINK, SOURCE = b"e", b"u", b"d"
"""The first byte on a connection tells what it is for."""


def serve(connection: socket.socket) -> None:
    with connection, contextlib.suppress(ConnectionResetError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        kind = connection.recv(1)
        if kind == ECHO:
            while data := connection.recv(len(BLOCK)):
                connection.sendall(data)
        elif kind == SINK:
            connection.sendall(drain(connection).to_bytes(8, "big"))
        elif kind == SOURCE:
            send_zeros(connection, int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big"))


def drain(connection: socket.socket) -> int:
    buffer = bytearray(len(BLOCK))
    total = 0
    while received := connection.recv_into(buffer):
        total += received
    return total


def send_zeros(connection: socket.socket, count: int) -> None:
    for _ in range(count // len(BLOCK)):
        connection.sendall(BLOCK)
    connection.sendall(BLOCK[: count % len(BLOCK)])


def accept(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=[connection], daemon=True).start()


def connect(address: str, kind: bytes) -> socket.socket:
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(kind)
    return connection


def move(connection: socket.socket, kind: bytes, count: int) -> None:
    if kind == SINK:
        send_zeros(connection, count)
        connection.shutdown(socket.SHUT_WR)
        arrived = int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big")
    else:
        connection.sendall(count.to_bytes(8, "big"))
        arrived = drain(connection)
    if arrived != count:
        raise EOFError(f"{arrived} of {count} bytes arrived")


def bulk(request: dict) -> dict:
    ways = {"upload": [SINK], "download": [SOURCE], "both": [SINK, SOURCE]}[request["work"]]
    kinds = ways * request.get("streams", 1)
    share = request["amount"] // len(kinds)
    connections = [connect(request["address"], kind) for kind in kinds]
    began = time.perf_counter()
    if len(kinds) == 1:
        move(connections[0], kinds[0], share)
    else:
        with ThreadPoolExecutor(len(kinds)) as pool:
            list(pool.map(move, connections, kinds, repeat(share)))
    seconds = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return {"seconds": seconds}


def echo(request: dict) -> dict:
    times = []
    with connect(request["address"], ECHO) as connection:
        for _ in range(request["amount"]):
            began = time.perf_counter()
            connection.sendall(BLOCK[:32])
            connection.recv(32, socket.MSG_WAITALL)
            times.append(time.perf_counter() - began)
    return {"seconds": sum(times), "times": times}


def streams(request: dict) -> dict:
    def turn(_: int) -> None:
        with connect(request["address"], ECHO) as connection:
            connection.sendall(BLOCK[:32])
            connection.recv(32, socket.MSG_WAITALL)

    began = time.perf_counter()
    if request["streams"] == 1:
        for number in range(request["amount"]):
            turn(number)
    else:
        with ThreadPoolExecutor(request["streams"]) as pool:
            list(pool.map(turn, range(request["amount"])))
    return {"seconds": time.perf_counter() - began}


def dial(request: dict) -> dict:
    times = []
    for _ in range(request["amount"]):
        began = time.perf_counter()
        connection = connect(request["address"], ECHO)
        times.append(time.perf_counter() - began)
        # A reset leaves no port waiting: at this pace they would run out.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    return {"seconds": sum(times), "times": times}


WORKS = {"echo": echo, "streams": streams, "dial": dial}


def main() -> None:
    addresses = []
    if os.environ["ROLE"] == "serve":
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        threading.Thread(target=accept, args=[listener], daemon=True).start()
        addresses = ["{}:{}".format(*listener.getsockname())]
    ready = {"version": f"{platform.system()} {platform.release()}", "addresses": addresses}
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(WORKS.get(request["work"], bulk)(request)), flush=True)


if __name__ == "__main__":
    main()
