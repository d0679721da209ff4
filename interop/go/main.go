// Command peer is a go-libp2p peer for interoperability tests. Environment
// variables go in, JSON lines come out on stdout, logs go to stderr, and the
// exit code is 0 only on success. This file picks the role and owns stdout.
package main

import (
	"encoding/json"
	"log"
	"os"
)

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	if err := start(); err != nil {
		log.Printf("failed: %v", err)
		os.Exit(1)
	}
}

// start follows the contract that the environment speaks of.
func start() error {
	if r := readRunner(os.Getenv); r != nil {
		return r.run()
	}
	return run(readSettings(os.Getenv))
}

// run plays the role. A dialer prints its line even about settings it can't use.
func run(s settings, invalid error) error {
	switch {
	case s.role == "dial" && s.autoNAT != "":
		return runAutoNATClient(s, invalid)
	case s.role == "dial":
		return runDial(s, invalid)
	case invalid != nil:
		return invalid
	case s.role == "relay":
		return runRelay(s)
	}
	return runListen(s)
}

// printLine writes one value to stdout as one line of JSON.
func printLine(value any) error {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false) // addresses and errors stay readable
	return encoder.Encode(value)
}
