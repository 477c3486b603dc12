/**
 * What kustomize makes of each kustomization, by the kustomize that is in kubectl and by a `kustomize` (KUSTOMIZE, or the one
 * in the PATH) where there is one: both have to mean the same. No cluster is asked.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { parseConfig } from '../../src/config.ts'
import {
  apiContainers,
  build,
  containersOf,
  elsewhere,
  environmentOf,
  identity,
  kustomizations,
  type Labels,
  podTemplateOf,
  ROOT,
  readKustomization as read,
  tools,
  workloadsOf,
} from './build.ts'

const { roots, components } = kustomizations()
/** Those that someone may apply to get the service; base has no image yet. */
const services = roots.filter((folder) => /^(overlays|tests)\//.test(folder))

describe.each(roots)('%s', (folder) => {
  const manifests = build(folder)

  test('means the same to each kustomize', () => {
    expect(manifests.length).toBeGreaterThan(0)
    for (const tool of Object.keys(tools)) expect(build(folder, tool), tool).toEqual(manifests)
  })

  test('has no object twice, no Secret, and no null that became text', () => {
    expect(new Set(manifests.map(identity)).size).toBe(manifests.length)
    expect(manifests.filter(({ apiVersion, kind }) => apiVersion === 'v1' && kind === 'Secret')).toEqual([])
    expect(JSON.stringify(manifests)).not.toContain('"null"')
  })
})

describe.each(services)('%s', (folder) => {
  const manifests = build(folder)
  const ofKind = (...kinds: string[]) => manifests.filter(({ kind }) => kinds.includes(kind))
  const workloads = workloadsOf(manifests)
  const deployment = ofKind('Deployment').find(({ metadata }) => metadata.name === 'users-api')
  const api = [...apiContainers(manifests).values()]

  test('everything is in one namespace, which is there', () => {
    const namespaces = ofKind('Namespace').map(({ metadata }) => metadata.name)
    expect(namespaces).toEqual([folder === 'overlays/gke-staging' ? 'users-staging' : 'users'])
    expect(elsewhere(manifests, namespaces[0])).toEqual([])
  })

  test("the API's containers run the image that the overlay names, and no container one without a tag", () => {
    const overlay = folder.startsWith('overlays/') ? folder : join(folder, read(folder).resources?.[0] ?? '')
    const [image, ...more] = read(overlay).images ?? []
    expect(more).toEqual([])
    const expected = `${image?.newName ?? image?.name}:${image?.newTag}${image?.digest ? `@${image.digest}` : ''}`
    const ours = api.filter(({ name }) => ['ensure-secret', 'migrate', 'api'].includes(name))
    expect(ours.length).toBeGreaterThanOrEqual(2)
    expect(new Set(ours.map((container) => container.image))).toEqual(new Set([expected]))
    for (const container of workloads.flatMap(containersOf)) expect(container.image).toMatch(/\S+:\S+/)
  })

  test('init containers stand in their order: what brings the Secret or the way to the database, then migrate', () => {
    const order = api.map(({ name }) => name)
    const expected = ['cloud-sql-proxy', 'ensure-secret', 'migrate', 'api']
    expect(order).toEqual(expected.filter((name) => order.includes(name)))
    expect(order).toContain('migrate')
    expect(order.at(-1)).toBe('api')
  })

  test('every selector finds pods, every Ingress a Service, every named port a port', () => {
    const pods = workloads.map(podTemplateOf)
    const matching = (labels: Labels = {}) =>
      pods.filter(({ metadata }) => Object.entries(labels).every(([key, value]) => metadata.labels[key] === value))
    for (const { kind, metadata, spec } of ofKind(
      'Service',
      'PodDisruptionBudget',
      'NetworkPolicy',
      'Deployment',
      'StatefulSet',
    )) {
      const labels = kind === 'Service' ? (spec.selector as Labels) : (spec.selector ?? spec.podSelector)?.matchLabels
      if (labels?.['cnpg.io/cluster']) continue // pods that an operator makes
      expect(matching(labels).length, `${kind} ${metadata.name}`).toBeGreaterThan(0)
      const names = matching(labels).flatMap((pod) =>
        pod.spec.containers.flatMap(({ ports }) => ports?.map(({ name }) => name)),
      )
      if (kind === 'Service') for (const { targetPort } of spec.ports ?? []) expect(names).toContain(targetPort)
    }
    const serviceNames = ofKind('Service').map(({ metadata }) => metadata.name)
    for (const { spec } of ofKind('Ingress')) {
      for (const { backend } of spec.rules?.flatMap(({ http }) => http?.paths ?? []) ?? [])
        expect(serviceNames).toContain(backend.service.name)
    }
  })

  test('every setting that a container reads is there: in the generated ConfigMap, or in a Secret that is made in the cluster', () => {
    const configMaps = new Map(ofKind('ConfigMap').map(({ metadata, data }) => [metadata.name, data]))
    for (const { name, env = [], envFrom = [] } of workloads.flatMap(containersOf)) {
      for (const { configMapRef } of envFrom)
        expect(configMaps.has(configMapRef.name), `${name}: ${configMapRef.name}`).toBe(true)
      for (const { valueFrom } of env) {
        const { configMapKeyRef: key, secretKeyRef: secret } = valueFrom ?? {}
        if (key) expect(configMaps.get(key.name)?.[key.key], `${name}: ${key.name} ${key.key}`).toBeDefined()
        if (secret) expect(['users-db', 'users-db-app']).toContain(secret.name)
      }
    }
  })

  // kustomize takes the name of a ConfigMap that it adds a hash to for the name of a Secret, too.
  test('a Role names the Secret that the containers read', () => {
    const names = ofKind('Role').flatMap(({ rules = [] }) => rules.flatMap(({ resourceNames = [] }) => resourceNames))
    for (const name of names) expect(name).toBe('users-db')
  })

  test('every pod meets Pod Security restricted, has a memory limit and no CPU limit, and no token of its own accord', () => {
    for (const workload of workloads) {
      const { spec } = podTemplateOf(workload)
      expect(spec.automountServiceAccountToken).toBe(false)
      expect(spec.securityContext).toMatchObject({ runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } })
      for (const { name, resources, securityContext } of containersOf(workload)) {
        expect(securityContext, name).toEqual({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        })
        expect(Object.keys(resources.limits), name).toEqual(['memory'])
        expect(Object.keys(resources.requests).sort(), name).toEqual(['cpu', 'memory'])
      }
    }
  })

  test('the grace period is longer than all that happens in it', () => {
    const container = api.at(-1)
    const shutdownMs = Number(container && environmentOf(container, manifests).get('SHUTDOWN_TIMEOUT_MS'))
    const graceSeconds = deployment?.spec.template.spec.terminationGracePeriodSeconds ?? 0
    expect(graceSeconds).toBeGreaterThan(
      (container?.lifecycle?.preStop.sleep.seconds ?? Number.NaN) + shutdownMs / 1000,
    )
  })

  test('an Ingress has its class by one of the two ways, never by both', () => {
    for (const { metadata, spec } of ofKind('Ingress')) {
      const ways = [spec.ingressClassName, metadata.annotations?.['kubernetes.io/ingress.class']]
      expect(ways.filter(Boolean)).toHaveLength(1)
    }
  })

  test('lets in what a page needs, through an Ingress or a Gateway, and nothing of the inside', () => {
    const rules = ofKind('Ingress', 'HTTPRoute').flatMap(({ spec }) => spec.rules ?? [])
    const paths = rules.flatMap(({ http, matches }) => [
      ...(http?.paths ?? []).map(({ pathType, path }) => `${pathType} ${path}`),
      ...(matches ?? []).map(({ path: { type, value } }) => `${type.replace('Path', '')} ${value}`),
    ])
    expect(paths).toEqual(['Exact /', 'Prefix /users', 'Prefix /docs', 'Prefix /assets', 'Exact /openapi.json'])
  })

  test('has the page for people, but not at an address that everybody reaches', () => {
    const isPublic = [folder, ...(read(folder).resources ?? [])].some((name) => /\/gke$/.test(name))
    expect(ofKind('ConfigMap').flatMap(({ data }) => data?.PAGE ?? [])).toEqual(isPublic ? ['off'] : [])
  })

  test('what cannot be changed later is not touched: claims have no labels; nor is a number that an autoscaler sets', () => {
    for (const { spec } of ofKind('StatefulSet')) {
      expect(spec.podManagementPolicy).toBe('Parallel')
      expect(spec.volumeClaimTemplates?.map(({ metadata }) => metadata)).toEqual([{ name: 'data' }])
    }
    const scaled = ofKind('HorizontalPodAutoscaler').map(({ spec }) => spec.scaleTargetRef?.name)
    expect(deployment?.spec.replicas === undefined).toBe(scaled.includes('users-api'))
  })
})

test.each([
  ['overlays/gke', [443]],
  ['overlays/gke-staging', [443]],
  ['overlays/minikube', [443, 6443, 8443]],
])('%s lets the API reach every host at %j, where an API server of Kubernetes may be', (folder, ports) => {
  const policy = build(folder).find(({ metadata }) => metadata.name === 'api-to-kubernetes')
  expect(policy?.spec.egress).toEqual([{ ports: ports.map((port) => ({ protocol: 'TCP', port })) }])
})

test.each(['overlays/gke', 'tests/gateway-gke'])(
  '%s keeps its backends for 2 minutes without the database',
  (folder) => {
    const manifests = build(folder)
    const probe = apiContainers(manifests).get('api')?.readinessProbe
    expect((probe?.periodSeconds ?? 0) * (probe?.failureThreshold ?? 0)).toBe(120)
    const checks = manifests.filter(({ kind }) => kind === 'BackendConfig' || kind === 'HealthCheckPolicy')
    expect(checks).toHaveLength(1)
    expect(JSON.stringify(checks)).toContain('"requestPath":"/livez"')
  },
)

test('an autoscaler at its most, with a rollout and the pods that drain, leaves PostgreSQL connections to spare', () => {
  const manifests = build('tests/hpa')
  const { DB_CONNECTIONS, MAX_STREAMS } = parseConfig({})
  const pods = (manifests.find(({ kind }) => kind === 'HorizontalPodAutoscaler')?.spec.maxReplicas ?? 0) + 1 + 3
  const postgres = manifests.filter(({ kind }) => kind === 'StatefulSet').flatMap(containersOf)
  const setting = postgres.flatMap(({ args = [] }) => args).find((arg) => arg.startsWith('max_connections='))
  expect(pods).toBe(16)
  expect(Number(setting?.split('=')[1])).toBeGreaterThan(pods * (DB_CONNECTIONS + MAX_STREAMS) + 10)
})

test('Argo CD syncs every cluster in the same way, from the one repository that its project allows', () => {
  const read = (name: string) => parse(readFileSync(join(ROOT, 'argocd', name), 'utf8'))
  const { spec } = read('application.yaml')
  const { template } = read('applicationset.yaml').spec
  expect(template.spec.syncPolicy).toEqual(spec.syncPolicy)
  expect(template.spec.ignoreDifferences).toEqual(spec.ignoreDifferences)
  const urls = [spec.source.repoURL, template.spec.source.repoURL]
  expect(new Set(urls)).toEqual(new Set(read('project.yaml').spec.sourceRepos))
})

test('every component is part of a kustomization under tests', () => {
  const used = new Set<string>()
  const follow = (folder: string) => {
    for (const path of read(folder).components ?? []) {
      const component = join(folder, path)
      used.add(component)
      follow(component)
    }
  }
  for (const folder of roots.filter((root) => root.startsWith('tests/'))) follow(folder)
  expect(components.length).toBeGreaterThan(0)
  expect(components.filter((component) => !used.has(component))).toEqual([])
})
