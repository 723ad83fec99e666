// Judges one register of a history with Porcupine:
//
//	torture export history.jsonl --format porcupine --key register-0 | go run .
//
// The last line says how many events there were, and Ok, Illegal or Unknown (not decided in time).
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

// One line of the export.
type line struct {
	ClientId int             `json:"client_id"`
	Kind     string          `json:"kind"`
	Id       int             `json:"id"`
	Value    json.RawMessage `json:"value"`
}

// The value of a call.
type call struct {
	Op    string          `json:"op"`
	Value json.RawMessage `json:"value"`
}

// The value of a return.
type answer struct {
	// Of a cas it is the pair that was asked for, which says nothing new.
	Value   interface{} `json:"value"`
	Unknown bool        `json:"unknown"`
}

// What is asked for, ready for the search.
type operation struct {
	name     string
	old, new string
}

var register = porcupine.Model{
	Init: func() interface{} { return "" },
	Step: func(state, input, output interface{}) (bool, interface{}) {
		asked, got := input.(operation), output.(answer)
		switch {
		case asked.name == "read":
			return got.Unknown || got.Value == state, state
		case asked.name == "write":
			return true, asked.new
		case state == asked.old:
			return true, asked.new
		default:
			// A compare-and-set that is known to have been applied found what it expected.
			return got.Unknown, state
		}
	},
}

func main() {
	var events []porcupine.Event
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		event, err := read(lines.Bytes())
		if err != nil {
			log.Fatalf("line %d: %v", len(events)+1, err)
		}
		events = append(events, event)
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(events), "events:", porcupine.CheckEventsTimeout(register, events, 10*time.Minute))
}

func read(text []byte) (porcupine.Event, error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return porcupine.Event{}, err
	}
	event := porcupine.Event{ClientId: l.ClientId, Id: l.Id}
	if l.Kind == "return" {
		var value answer
		err := json.Unmarshal(l.Value, &value)
		event.Kind, event.Value = porcupine.ReturnEvent, value
		return event, err
	}
	var value call
	if err := json.Unmarshal(l.Value, &value); err != nil {
		return event, err
	}
	asked := operation{name: value.Op}
	var err error
	switch value.Op {
	case "write":
		err = json.Unmarshal(value.Value, &asked.new)
	case "cas":
		var pair [2]string
		err = json.Unmarshal(value.Value, &pair)
		asked.old, asked.new = pair[0], pair[1]
	}
	event.Kind, event.Value = porcupine.CallEvent, asked
	return event, err
}
