// Runs pods through MutatingAdmissionPolicies as an API server does: admission FILE...
//
// The files hold YAML documents: policies, their bindings, namespaces, pods and Services. Admission is the API server's own plugin
// over a fake client. The answer is a list in JSON, one item for each pod; without a policy pods stay as they are:
//
//	pod         as it was admitted
//	error       why it was refused
//	again       what a second pass changes: nothing, or the pod of that pass
//	resolves    port name → number, as the controller of EndpointSlices finds it for a Service that targets the name
//	services    Service:port → number, likewise, of the Services that select the pod; 0 where they find none
//	restricted  what the Pod Security level "restricted" has against it
//
// With policies, the first pod must be one that they change: it tells when the plugin has read them. A matchCondition
// that needs the policy's variables ends the program: the API server compiles them without.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"time"

	admissionregistration "k8s.io/api/admissionregistration/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/endpointslice"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

const patience = time.Minute

type answer struct {
	Pod        *core.Pod      `json:"pod"`
	Error      string         `json:"error,omitempty"`
	Again      *core.Pod      `json:"again,omitempty"`
	Resolves   map[string]int `json:"resolves"`
	Services   map[string]int `json:"services"`
	Restricted []string       `json:"restricted"`
}

func main() {
	answers, err := run(os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(answers)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "admission:", err)
		os.Exit(1)
	}
}

func run(files []string) ([]answer, error) {
	objects, err := read(files)
	if err != nil {
		return nil, err
	}
	pods, rest := split(objects)
	if len(pods) == 0 {
		return nil, errors.New("there is no pod")
	}
	admit := func(*core.Pod) error { return nil }
	if policies(rest) {
		server, err := newServer(rest)
		if err != nil {
			return nil, err
		}
		defer server.close()
		if err := server.wait(pods[0]); err != nil {
			return nil, err
		}
		admit = server.admit
	}
	return examine(pods, services(rest), admit)
}

func split(objects []runtime.Object) (pods []*core.Pod, rest []runtime.Object) {
	for _, object := range objects {
		if pod, ok := object.(*core.Pod); ok {
			pods = append(pods, pod)
		} else {
			rest = append(rest, object)
		}
	}
	return pods, rest
}

func policies(objects []runtime.Object) bool {
	for _, object := range objects {
		if _, ok := object.(*admissionregistration.MutatingAdmissionPolicy); ok {
			return true
		}
	}
	return false
}

func services(objects []runtime.Object) (found []*core.Service) {
	for _, object := range objects {
		if service, ok := object.(*core.Service); ok {
			found = append(found, service)
		}
	}
	return found
}

func examine(pods []*core.Pod, services []*core.Service, admit func(*core.Pod) error) ([]answer, error) {
	judge, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, err
	}
	level := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	var answers []answer
	for _, pod := range pods {
		one := answer{Pod: pod, Resolves: map[string]int{}, Services: map[string]int{}, Restricted: []string{}}
		if err := admit(pod); err != nil {
			one.Error = err.Error()
		}
		again := pod.DeepCopy()
		if err := admit(again); err != nil && one.Error == "" {
			return nil, fmt.Errorf("%s, a second time: %w", pod.Name, err)
		}
		if !reflect.DeepEqual(pod, again) {
			one.Again = again
		}
		for _, check := range judge.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec) {
			if !check.Allowed {
				one.Restricted = append(one.Restricted, check.ForbiddenReason+": "+check.ForbiddenDetail)
			}
		}
		for _, name := range portNames(pod) {
			service := &core.ServicePort{Protocol: core.ProtocolTCP, TargetPort: intstr.FromString(name)}
			number, err := endpointslice.FindPort(pod, service)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", pod.Name, name, err)
			}
			one.Resolves[name] = number
		}
		for _, service := range services {
			one.find(service)
		}
		answers = append(answers, one)
	}
	return answers, nil
}

// find adds where the Service leads, if it selects the pod.
func (one *answer) find(service *core.Service) {
	selects := labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(one.Pod.Labels))
	if service.Namespace != one.Pod.Namespace || !selects {
		return
	}
	for i := range service.Spec.Ports {
		port := &service.Spec.Ports[i]
		number, err := endpointslice.FindPort(one.Pod, port)
		if err != nil {
			number = 0
		}
		one.Services[service.Name+":"+port.Name] = number
	}
}

func portNames(pod *core.Pod) (names []string) {
	for _, container := range append(append([]core.Container{}, pod.Spec.Containers...), pod.Spec.InitContainers...) {
		for _, port := range container.Ports {
			if port.Name != "" && port.Protocol == core.ProtocolTCP {
				names = append(names, port.Name)
			}
		}
	}
	return names
}

// wait until the policies change the first pod: the plugin reads them, and the schemas, in its own time.
func (server *server) wait(first *core.Pod) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		pod := first.DeepCopy()
		err := server.admit(pod)
		if err == nil && !reflect.DeepEqual(pod, first) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the policies never changed the first pod, %s: %w", first.Name, errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}
