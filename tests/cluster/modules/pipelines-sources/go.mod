module rankwise.dev/tests/cluster/pipelines-sources

go 1.26.0

// Modules of which files are wanted: manifests, pages, and what the module `pipelines` replaces by folders in which a
// file is made anew or put back.
require (
	github.com/argoproj/argo-workflows/v3 v3.6.7
	github.com/kubeflow/pipelines v0.0.0-20250902140602-fc3214d4b4d3
	github.com/kubeflow/pipelines/api v0.0.0-20250102152816-873e9dedd766
)
