// Command peer is go-libp2p as a benchmark peer. The contract is in ../README.md.
// This file reads the settings and speaks the lines.

package main

import (
	"bufio"
	"encoding/json"
	"log"
	"os"
	"strconv"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

type request struct {
	Work      string   `json:"work"`
	Address   string   `json:"address"`
	Addresses []string `json:"addresses"`
	Amount    int      `json:"amount"`
	Streams   int      `json:"streams"`
}

type answer struct {
	Seconds float64   `json:"seconds"`
	Times   []float64 `json:"times,omitempty"`
	Error   string    `json:"error,omitempty"`
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	hosts := 1
	if text := os.Getenv("HOSTS"); text != "" {
		var err error
		if hosts, err = strconv.Atoi(text); err != nil {
			return err
		}
	}
	nodes := []host.Host{}
	addresses := []string{}
	for range hosts {
		node, err := newNode()
		if err != nil {
			return err
		}
		defer node.Close()
		nodes = append(nodes, node)
		full, err := peer.AddrInfoToP2pAddrs(host.InfoFromHost(node))
		if err != nil {
			return err
		}
		for _, address := range full {
			addresses = append(addresses, address.String())
		}
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(map[string]any{"version": version(), "addresses": addresses}); err != nil {
		return err
	}
	drivers := &driver{nodes: nodes}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var asked request
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return err
		}
		done, err := drivers.do(asked)
		if err != nil {
			done.Error = err.Error()
		}
		if err := out.Encode(done); err != nil {
			return err
		}
	}
	return lines.Err()
}
