// Reads dashboards as Grafana's schema describes them: dashboards FILE...
//
// The schema is grafana-foundation-sdk's, which is generated from Grafana's. Reading is strict: a key that Grafana does
// not know, a missing one or a value of another type is an error, in panels, their options and their queries, too.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	plugins.RegisterDefaultPlugins()
	failed := len(os.Args) < 2
	for _, file := range os.Args[1:] {
		if err := read(file); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", file, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}

func read(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var model dashboard.Dashboard
	if err := found(model.UnmarshalJSONStrict(raw)); err != nil {
		return err
	}
	return found(model.Validate())
}

// found is nil for an empty list of errors, which the SDK returns where it found nothing.
func found(err error) error {
	var list cog.BuildErrors
	if errors.As(err, &list) && len(list) == 0 {
		return nil
	}
	return err
}
