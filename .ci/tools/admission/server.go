package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	admissionregistration "k8s.io/api/admissionregistration/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/client-go/discovery"
	dynamic "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/openapi"
	"k8s.io/client-go/openapi/openapitest"
)

// server is as much of an API server as admits a pod.
type server struct {
	plugin *mutating.Plugin
	close  func()
}

// client is the fake one, with the schemas of Kubernetes: the fake one has none.
type client struct{ kubernetes.Interface }

type schemas struct{ discovery.DiscoveryInterfaces }

func (c client) Discovery() discovery.DiscoveryInterfaces { return schemas{c.Interface.Discovery()} }

func (schemas) OpenAPIV3() openapi.Client { return openapitest.NewEmbeddedFileClient() }

func newServer(objects []runtime.Object) (*server, error) {
	for _, object := range objects {
		if err := complete(object); err != nil {
			return nil, err
		}
	}
	plugin, err := mutating.NewPlugin(nil)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	api := client{fake.NewClientset(objects...)}
	informer := informers.NewSharedInformerFactory(api, 0)
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(core.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
	plugin.SetExternalKubeClientSet(api)
	plugin.SetExternalKubeInformerFactory(informer)
	plugin.SetDynamicClient(dynamic.NewSimpleDynamicClient(scheme.Scheme))
	plugin.SetRESTMapper(mapper)
	plugin.SetUnconditionalAuthorizer(authorizerfactory.NewAlwaysAllowAuthorizer())
	plugin.SetDrainedNotification(ctx.Done())
	plugin.SetEnabled(true)
	if err := plugin.ValidateInitialization(); err != nil {
		stop()
		return nil, err
	}
	informer.Start(ctx.Done())
	informer.WaitForCacheSync(ctx.Done())
	return &server{plugin, stop}, nil
}

// complete sets what the API server would set by default, and compiles matchConditions as it does before it stores a policy.
func complete(object runtime.Object) error {
	policy, ok := object.(*admissionregistration.MutatingAdmissionPolicy)
	if !ok {
		if binding, ok := object.(*admissionregistration.MutatingAdmissionPolicyBinding); ok && binding.Spec.MatchResources != nil {
			complement(binding.Spec.MatchResources)
		}
		return nil
	}
	complement(policy.Spec.MatchConstraints)
	compiler := cel.NewCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	options := cel.OptionalVariableDeclarations{HasParams: policy.Spec.ParamKind != nil, HasAuthorizer: true}
	for _, condition := range policy.Spec.MatchConditions {
		accessor := matchconditions.MatchCondition(condition)
		result := compiler.CompileCELExpression(&accessor, options, environment.NewExpressions)
		if result.Error != nil {
			return fmt.Errorf("%s: matchCondition %s: %w", policy.Name, condition.Name, result.Error)
		}
	}
	return nil
}

func complement(match *admissionregistration.MatchResources) {
	if match.MatchPolicy == nil {
		equivalent := admissionregistration.Equivalent
		match.MatchPolicy = &equivalent
	}
	if match.NamespaceSelector == nil {
		match.NamespaceSelector = &metav1.LabelSelector{}
	}
	if match.ObjectSelector == nil {
		match.ObjectSelector = &metav1.LabelSelector{}
	}
}

// admit changes the pod as the policies say.
func (server *server) admit(pod *core.Pod) error {
	kind := core.SchemeGroupVersion.WithKind("Pod")
	resource := core.SchemeGroupVersion.WithResource("pods")
	request := admission.NewAttributesRecord(pod, nil, kind, pod.Namespace, pod.Name, resource, "", admission.Create,
		&metav1.CreateOptions{}, false, nil)
	return server.plugin.Admit(context.Background(), request, admission.NewObjectInterfacesFromScheme(scheme.Scheme))
}

// read decodes strictly every document of the files, with the defaults that pods get.
func read(files []string) ([]runtime.Object, error) {
	decoder := scheme.Codecs.UniversalDeserializer()
	var objects []runtime.Object
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(raw)))
		for {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			object, _, err := decoder.Decode(document, nil, nil)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			protocols(object)
			objects = append(objects, object)
		}
	}
	return objects, nil
}

// protocols sets the one default that admission comes after and that FindPort asks for.
func protocols(object runtime.Object) {
	switch object := object.(type) {
	case *core.Service:
		for i := range object.Spec.Ports {
			complementProtocol(&object.Spec.Ports[i].Protocol)
		}
	case *core.Pod:
		for _, containers := range [][]core.Container{object.Spec.Containers, object.Spec.InitContainers} {
			for i := range containers {
				for j := range containers[i].Ports {
					complementProtocol(&containers[i].Ports[j].Protocol)
				}
			}
		}
	}
}

func complementProtocol(protocol *core.Protocol) {
	if *protocol == "" {
		*protocol = core.ProtocolTCP
	}
}
