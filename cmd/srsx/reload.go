package main

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"srsx/lb"
)

// reload reads the configuration again and applies what can change while
// sessions are open: static origins, rules, slow start and the log level. It
// says what waits for a restart. A configuration with an error changes nothing.
func (a *agent) reload(ctx context.Context) {
	next, err := a.from.load()
	if err != nil {
		a.log.ErrorContext(ctx, "configuration not reloaded", "err", err)
		return
	}
	origins, err := next.staticOrigins()
	if err == nil {
		err = a.applyStatic(ctx, origins)
	}
	if err != nil {
		a.log.ErrorContext(ctx, "configuration not reloaded whole", "err", err)
		return
	}
	a.balancer.SetPolicy(next.policy())
	a.level.Set(next.logLevel)
	a.reloaded = next
	a.log.InfoContext(ctx, "configuration reloaded", "static_origins", len(origins), "rules", len(next.sections.Rules))
	if waiting := a.config.waitsForRestart(&next); len(waiting) > 0 {
		a.log.WarnContext(ctx, "changed settings wait for a restart", "settings", waiting)
	}
}

// waitsForRestart lists the settings that next changes and that a running peer
// cannot take over, by name and never by value.
func (c *config) waitsForRestart(next *config) []string {
	live := []string{"log-level", "slow-start"}
	var waiting []string
	for _, name := range slices.Sorted(maps.Keys(next.values)) {
		isBackend := strings.HasPrefix(name, backendPrefix)
		if next.values[name] != c.values[name] && !isBackend && !slices.Contains(live, name) {
			waiting = append(waiting, name)
		}
	}
	// The content of a secret's file may change where its name does not.
	for name, changed := range map[string]bool{
		"token":                            c.token != next.token && c.values["token"] == next.values["token"],
		"register-token":                   c.registerToken != next.registerToken && c.values["register-token"] == next.values["register-token"],
		"vhosts":                           !reflect.DeepEqual(c.sections.VHosts, next.sections.VHosts),
		"limits":                           c.sections.Limits != next.sections.Limits,
		"origins (of those that register)": !reflect.DeepEqual(c.registering(), next.registering()),
		"origins (client_header)":          !slices.Equal(c.clientHeaders(), next.clientHeaders()),
		"origins (whip, whep)":             !maps.Equal(c.pathTemplates(), next.pathTemplates()),
	} {
		if changed {
			waiting = append(waiting, name)
		}
	}
	slices.Sort(waiting)
	return waiting
}

// clientHeaders are the static origins that are told of their clients.
func (c *config) clientHeaders() []string {
	var ids []string
	for _, o := range c.sections.Origins {
		if o.ClientHeader && o.isStatic() {
			ids = append(ids, o.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// pathTemplates are those of static origins.
func (c *config) pathTemplates() map[string][2]string {
	templates := make(map[string][2]string)
	for _, o := range c.sections.Origins {
		if o.isStatic() && o.WHIP+o.WHEP != "" {
			templates[o.ID] = [2]string{o.WHIP, o.WHEP}
		}
	}
	return templates
}

// registering are the entries for origins that are not static.
func (c *config) registering() []originEntry {
	return slices.DeleteFunc(slices.Clone(c.sections.Origins), originEntry.isStatic)
}

// applyStatic makes the balancer's static origins those of the list. One that
// did not change is left alone: an operator may have drained or weighed it.
func (a *agent) applyStatic(ctx context.Context, list []lb.Registration) error {
	a.staticMu.Lock()
	defer a.staticMu.Unlock()
	rules := a.originRules()
	gone := maps.Clone(a.static)
	for _, r := range list {
		id := r.Origin.ID
		delete(gone, id)
		if before, ok := a.static[id]; ok && reflect.DeepEqual(before, r) {
			continue
		}
		err := rules.RefuseOwn(r.Origin)
		if err == nil {
			err = a.balancer.Register(ctx, r)
		}
		if err != nil {
			return fmt.Errorf("origin %q: %w", id, err)
		}
		a.static[id] = r
	}
	for id := range gone {
		if err := a.balancer.Remove(ctx, id); err != nil {
			a.log.WarnContext(ctx, "origin already removed", "origin", id, "err", err)
		}
		delete(a.static, id)
	}
	return nil
}
