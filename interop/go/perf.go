// Perf: /perf/1.0.0, both sides, as libp2p's specification has it. go-libp2p
// itself has none, and what is published for it is a program, not a package.

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"math"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	perfProtocol = protocol.ID("/perf/1.0.0")
	perfChunk    = 64 << 10
)

// zeros is a source of as many zeros as anybody wants.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func servePerf(stream network.Stream) {
	if err := answerPerf(stream); err != nil {
		log.Printf("perf with %s broke off: %v", stream.Conn().RemotePeer(), err)
		stream.Reset()
	}
}

// answerPerf takes all that comes, and only then sends what was asked for.
func answerPerf(stream network.Stream) error {
	var request [8]byte
	if _, err := io.ReadFull(stream, request[:]); err != nil {
		return err
	}
	wanted := binary.BigEndian.Uint64(request[:])
	if wanted > math.MaxInt64 {
		return fmt.Errorf("%d bytes are too many", wanted)
	}
	buffer := make([]byte, perfChunk)
	if _, err := io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{stream}, buffer); err != nil {
		return err
	}
	if err := sendZeros(stream, int64(wanted)); err != nil {
		return err
	}
	return stream.Close()
}

// perf sends so many bytes, then receives as many as it asks for, and returns how many came.
func perf(ctx context.Context, conn network.Conn, upload, download int64) (int64, error) {
	stream, err := openStream(ctx, conn, perfProtocol)
	if err != nil {
		return 0, fmt.Errorf("opening the perf stream: %w", err)
	}
	defer context.AfterFunc(ctx, func() { stream.Reset() })()
	received, err := measurePerf(stream, upload, download)
	if err == nil && received != download {
		err = fmt.Errorf("%d bytes came of the %d asked for", received, download)
	}
	if err != nil {
		stream.Reset()
		return received, fmt.Errorf("perf: %w", err)
	}
	return received, stream.Close()
}

func measurePerf(stream network.Stream, upload, download int64) (int64, error) {
	if _, err := stream.Write(binary.BigEndian.AppendUint64(nil, uint64(download))); err != nil {
		return 0, err
	}
	if err := sendZeros(stream, upload); err != nil {
		return 0, err
	}
	if err := stream.CloseWrite(); err != nil {
		return 0, err
	}
	return io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{stream}, make([]byte, perfChunk))
}

func sendZeros(stream network.Stream, count int64) error {
	_, err := io.CopyBuffer(onlyWriter{stream}, io.LimitReader(zeros{}, count), make([]byte, perfChunk))
	return err
}
