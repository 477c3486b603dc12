/**
 * What is in git is what runs: Argo CD syncs the overlays from a repository made of this working tree, through a release,
 * its revert, hands that meddle and its own removal.
 *
 * The cluster needs Argo CD in the namespace argocd, which must find the repository where this process puts it: in
 * E2E_REPOSITORIES, or the system's temporary folder.
 */
import { execFileSync, spawn } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  allGone,
  apiPods,
  deleteNamespace,
  get,
  imageOf,
  kubectl,
  list,
  NAMESPACE,
  prepareNamespace,
  reachable,
  until,
} from './kubectl.ts'
import { missing, startLoad } from './load.ts'

const ROOT = join(import.meta.dirname, '../..')
const BASE = 'kustomize/base/kustomization.yaml'
const GKE = 'kustomize/overlays/gke'
const MINIKUBE = 'kustomize/overlays/minikube'
/** The cluster has the images already: their tags alone find them. */
const DIGEST = `sha256:${'0'.repeat(64)}`
/** What tells Argo CD of a second cluster: the same one, under another name. */
const CLUSTER_SECRET = 'cluster-second'
const SYNC_TIMEOUT_S = 300

const IDENTITY = {
  GIT_AUTHOR_NAME: 'test',
  GIT_AUTHOR_EMAIL: 'test@example.com',
  GIT_COMMITTER_NAME: 'test',
  GIT_COMMITTER_EMAIL: 'test@example.com',
}

type Application = {
  status?: {
    sync?: { status: string; revision?: string }
    health?: { status: string }
    conditions?: { type: string; message: string }[]
    operationState?: {
      phase: string
      message?: string
      finishedAt?: string
    }
  }
}
type Pod = {
  metadata: { name: string; deletionTimestamp?: string }
  spec: { containers: { image: string; envFrom: { configMapRef: { name: string } }[] }[] }
}

let image: string
let nextImage: string
let folder: string
let clone: string

function run(command: string, ...args: string[]) {
  const env = { ...process.env, ...IDENTITY }
  return execFileSync(command, args, { cwd: clone, encoding: 'utf8', env, stdio: ['ignore', 'pipe', 'pipe'] }).trim()
}
const git = (...args: string[]) => run('git', ...args)
const head = () => git('rev-parse', 'HEAD')

/** Changes a file of the clone, which must have what is to be changed: no test passes by changing nothing. */
function edit(file: string, from: string | RegExp, to: string) {
  const path = join(clone, file)
  const text = readFileSync(path, 'utf8')
  expect(text).toMatch(from)
  writeFileSync(path, text.replace(from, to))
}

async function push(message: string) {
  git('add', '--all')
  git('commit', '--quiet', `--message=${message}`)
  git('push', '--quiet', 'origin', 'main')
  return pushed()
}

/** As release.yml does. */
async function release(tag: string) {
  run(process.execPath, '.github/scripts/set-image.ts', `${tag}@${DIGEST}`, '--push')
  return pushed()
}

async function revert() {
  git('revert', '--no-edit', 'HEAD')
  git('push', '--quiet', 'origin', 'main')
  return pushed()
}

/** Tells Argo CD, as a webhook does: on its own it looks at git every few minutes. Returns the commit. */
async function pushed() {
  await argocd('annotate', 'applications', '--all', 'argocd.argoproj.io/refresh=normal', '--overwrite')
  return git('rev-parse', 'HEAD')
}

const nameOf = (reference: string) => reference.slice(0, reference.lastIndexOf(':'))
const tagOf = (reference: string) => reference.slice(reference.lastIndexOf(':') + 1)

/** kubectl where Argo CD is. */
const argocd = (...args: string[]) => kubectl(...args, '--namespace=argocd')

const status = async (name = 'users-api') =>
  (await get<Application>('applications.argoproj.io', name, '--namespace=argocd')).status ?? {}

/** Waits until the commit is what runs. */
async function synced(commit: string, name = 'users-api') {
  let seen: unknown
  await until(`${name} is at ${commit}`, SYNC_TIMEOUT_S, async () => {
    const { sync, health, operationState, conditions } = await status(name)
    seen = { sync, health, conditions, phase: operationState?.phase, message: operationState?.message }
    return (
      sync?.revision === commit &&
      sync.status === 'Synced' &&
      health?.status === 'Healthy' &&
      operationState?.phase === 'Succeeded'
    )
  }).catch((error) => {
    throw new Error(`${error.message}; last seen: ${JSON.stringify(seen, null, 2)}`)
  })
}

const exists = async (...args: string[]) =>
  (await kubectl('get', ...args, '--ignore-not-found', '--output=name')) !== ''
const replicas = async () => (await get<{ spec: { replicas: number } }>('deployment', 'users-api')).spec.replicas

/** Every number of replicas that somebody asked for. */
function watchReplicas() {
  const seen: number[] = []
  const watch = spawn('kubectl', [
    'get',
    'deployment/users-api',
    `--namespace=${NAMESPACE}`,
    '--watch',
    '--output=jsonpath={.spec.replicas}{"\\n"}',
  ])
  createInterface({ input: watch.stdout }).on('line', (line) => seen.push(Number(line)))
  return {
    stop: () => {
      watch.kill()
      return seen
    },
  }
}

/** The API's pods that are here to stay. */
const pods = async () =>
  (await list<Pod>('pods', '--selector=app.kubernetes.io/name=users-api')).filter(
    (pod) => !pod.metadata.deletionTimestamp,
  )
const images = async () => (await pods()).map(({ spec }) => spec.containers[0]?.image.replace(/@.*/, ''))

const applyArgocd = () => argocd('apply', '--kustomize', join(clone, 'kustomize/argocd'))

/** Namespace `users` may be deleted by these tests: `deleteNamespace` asks for it. */
const mark = () =>
  until('the namespace is there', SYNC_TIMEOUT_S, async () => {
    if (!(await exists('namespace', NAMESPACE))) return false
    await prepareNamespace()
    return true
  })

async function clean() {
  await argocd('delete', 'applicationset,application', '--all', '--timeout=180s')
  await argocd('delete', 'appproject', 'users-api', '--ignore-not-found')
  await argocd('delete', 'secret', CLUSTER_SECRET, '--ignore-not-found')
  await deleteNamespace()
}

beforeAll(async () => {
  await clean()
  const { name, full } = await imageOf('overlays/gke')
  image = process.env.E2E_IMAGE ?? full.replace(/@.*/, '')
  nextImage = process.env.E2E_IMAGE_NEXT ?? `${name}:next`

  const repositories = process.env.E2E_REPOSITORIES ?? tmpdir()
  mkdirSync(repositories, { recursive: true })
  folder = mkdtempSync(join(repositories, 'argocd-'))
  chmodSync(folder, 0o755) // Argo CD may be another user
  clone = join(folder, 'clone')
  mkdirSync(clone)
  for (const part of ['kustomize', '.github/scripts']) cpSync(join(ROOT, part), join(clone, part), { recursive: true })
  git('init', '--quiet', '--initial-branch=main')
  git('init', '--quiet', '--initial-branch=main', '--bare', '../users-api.git')
  git('remote', 'add', 'origin', '../users-api.git')

  // The three places that name the repository, and the two that name the image.
  for (const file of ['project', 'application', 'applicationset']) {
    edit(`kustomize/argocd/${file}.yaml`, /https:\S*\/users-api$/m, `file://${folder}/users-api.git`)
  }
  edit(`${GKE}/kustomization.yaml`, /newName: .*/, `newName: ${nameOf(image)}`)
  edit(`${MINIKUBE}/kustomization.yaml`, /newTag: .*/, `newName: ${nameOf(image)}\n    newTag: ${tagOf(image)}`)
  // A minute less for each rollout, as in the end-to-end tests.
  edit(`${GKE}/deployment.yaml`, /minReadySeconds: 15/, 'minReadySeconds: 0')
  await push('the working tree')
})

afterAll(async () => {
  await clean()
  rmSync(folder, { recursive: true })
})

describe('the gke overlay', () => {
  test('is Synced and Healthy on an empty cluster with nothing but kubectl apply -k kustomize/argocd', async () => {
    const commit = await release(tagOf(image))
    await applyArgocd()
    await mark()
    await synced(commit)
    expect(await images()).toEqual([image, image, image, image])

    const url = await reachable()
    const created = await fetch(`${url}/users`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ username: 'Alice', email: 'alice@example.com' }),
    })
    expect(created.status).toBe(201)
  })

  test('does not change when it is synced again, twice', async () => {
    const state = async () => ({
      objects: await kubectl(
        'get',
        'deployments,statefulsets,services,ingresses,networkpolicies,poddisruptionbudgets,configmaps,roles,rolebindings',
        '--output=jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.resourceVersion}{"\\n"}{end}',
      ),
      pods: await kubectl(
        'get',
        'pods',
        '--output=jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[*].restartCount}{"\\n"}{end}',
      ),
    })
    const before = await state()
    for (const round of [1, 2]) {
      const { operationState: last } = await status()
      await sleep(1_000) // finishedAt counts seconds
      // What `argocd app sync` asks for: all resources, not only those that differ.
      const operation = { operation: { sync: { prune: true, syncOptions: ['PruneLast=true'] } } }
      await argocd('patch', 'application', 'users-api', '--type=merge', `--patch=${JSON.stringify(operation)}`)
      await until(`sync ${round} ends`, SYNC_TIMEOUT_S, async () => {
        const { operationState } = await status()
        return operationState?.phase === 'Succeeded' && operationState.finishedAt !== last?.finishedAt
      })
    }
    expect(await state()).toEqual(before)
  })

  test('stays Synced with no further operation while git stays', async () => {
    const { operationState: last } = await status()
    for (const end = Date.now() + 45_000; Date.now() < end; await sleep(1_000)) {
      const { sync, operationState, conditions } = await status()
      expect(sync?.status).toBe('Synced')
      expect(operationState?.finishedAt).toBe(last?.finishedAt)
      expect(conditions ?? []).toEqual([])
    }
  })

  test('rolls a release out under load with no failed request, and its revert too', async () => {
    const url = await reachable()
    const load = startLoad({ url, rate: 50 })
    await synced(await release(tagOf(nextImage)))
    await allGone()
    expect(await images()).toEqual([nextImage, nextImage, nextImage, nextImage])

    await synced(await revert())
    await allGone()
    expect(await images()).toEqual([image, image, image, image])

    const { failures, created, sent } = await load.stop('a release and its revert')
    expect(sent).toBeGreaterThan(500)
    expect(failures).toEqual([])
    expect(await missing(url, created)).toEqual([])
  })

  test('undoes what a hand changed', async () => {
    await kubectl('scale', 'deployment/users-api', '--replicas=2')
    await until('there are four replicas again', 60, async () => (await replicas()) === 4)

    const graceSeconds = () =>
      kubectl('get', 'deployment', 'users-api', '--output=jsonpath={.spec.template.spec.terminationGracePeriodSeconds}')
    const before = await graceSeconds()
    const patch = { spec: { template: { spec: { terminationGracePeriodSeconds: Number(before) + 1 } } } }
    await kubectl('patch', 'deployment', 'users-api', `--patch=${JSON.stringify(patch)}`)
    await until('the grace period is as before', 60, async () => (await graceSeconds()) === before)

    await kubectl('delete', 'poddisruptionbudget', 'users-api')
    await until('the budget is back', 60, () => exists('poddisruptionbudget', 'users-api'))
    await synced(head())
  })

  test('loses what git no longer has, a replaced ConfigMap only when no pod reads it', async () => {
    const configMap = (pod: Pod) => pod.spec.containers[0]?.envFrom.at(-1)?.configMapRef.name
    const [old] = (await pods()).map(configMap)
    edit(BASE, /.*api-disruption-budget\.yaml\n/, '')
    edit(BASE, /LOG_LEVEL=.*/, 'LOG_LEVEL=warn')
    const commit = await push('no budget, fewer logs')
    await until('the old ConfigMap is gone', SYNC_TIMEOUT_S, async () => {
      if (await exists('configmap', `${old}`)) return false
      expect((await pods()).map(configMap)).not.toContain(old)
      return true
    })
    await synced(commit)
    expect(await exists('poddisruptionbudget', 'users-api')).toBe(false)
  })

  test('leaves the replicas to an autoscaler, and takes none away on the way there', async () => {
    edit(`${GKE}/kustomization.yaml`, /^images:/m, 'components:\n  - ../../components/hpa\n\nimages:')
    edit('kustomize/components/hpa/autoscaler.yaml', /minReplicas: \d+/, 'minReplicas: 5')
    // kustomize/README.md#autoscaling: without it the sync takes "no number" for one replica.
    await kubectl('annotate', 'deployment', 'users-api', 'kubectl.kubernetes.io/last-applied-configuration-')
    const seen = watchReplicas()
    await synced(await push('an autoscaler that wants five'))
    await until('there are five replicas', 120, async () => (await replicas()) === 5)
    expect(new Set(seen.stop())).toEqual(new Set([4, 5]))
    edit(BASE, /LOG_LEVEL=.*/, 'LOG_LEVEL=info')
    await synced(await push('another sync'))
    expect(await replicas()).toBe(5)
  })

  test('leaves the namespace, the volume and the Secret when the application is deleted, and finds them again', async () => {
    const left = async () => ({
      namespace: await kubectl('get', 'namespace', NAMESPACE, '--output=jsonpath={.metadata.uid} {.status.phase}'),
      volume: await kubectl(
        'get',
        'persistentvolumeclaims',
        '--output=jsonpath={.items[*].metadata.uid} {.items[*].status.phase}',
      ),
      secret: await kubectl('get', 'secret', 'users-db', '--output=jsonpath={.metadata.uid} {.data}'),
    })
    const before = await left()
    expect(before.volume).toMatch(/^\S+ Bound$/)

    await argocd('delete', 'application', 'users-api', '--timeout=180s')
    await until('nothing runs', 180, async () => !(await exists('pods,deployments,statefulsets,services,ingresses')))
    expect(await left()).toEqual(before)

    await applyArgocd()
    await synced(head())
    const found = await fetch(`${await reachable()}/users?username=Alice`)
    expect(await found.json()).toMatchObject({ users: [{ username: 'Alice', email: 'alice@example.com' }] })
  })
})

describe('the minikube overlay', () => {
  beforeAll(clean)

  test('is Synced and Healthy, and gets there again, though its Ingress never has an address', async () => {
    edit('kustomize/argocd/application.yaml', GKE, MINIKUBE)
    // No controller serves this class, as on a minikube without its addon.
    edit(`${MINIKUBE}/ingress.yaml`, /ingressClassName: .*/, 'ingressClassName: nobody')
    const commit = await push('an Ingress that nobody serves')
    await applyArgocd()
    await mark()
    await synced(commit)
    expect(await images()).toEqual([image])

    // What is pruned last waits for the health of what was applied before.
    edit(BASE, /LOG_LEVEL=.*/, 'LOG_LEVEL=debug')
    await synced(await push('one ConfigMap replaces another'))
  })

  test('goes to the clusters whose label names it, and to no other', async () => {
    const applications = () => argocd('get', 'applications', '--output=name')
    expect(await applications()).toBe('application.argoproj.io/users-api')
    await argocd('delete', 'application', 'users-api', '--timeout=180s')

    const cluster = [
      '--from-literal=name=second',
      '--from-literal=server=https://kubernetes.default.svc',
      '--from-literal=config={}',
    ]
    await argocd('create', 'secret', 'generic', CLUSTER_SECRET, ...cluster)
    const label = (...labels: string[]) => argocd('label', 'secret', CLUSTER_SECRET, ...labels)
    await label('argocd.argoproj.io/secret-type=cluster', 'users-api/overlay=minikube')
    await until(
      'it has its application',
      60,
      async () => (await applications()) === 'application.argoproj.io/users-api-second',
    )
    await synced(head(), 'users-api-second')
    expect(await images()).toEqual([image])

    await label('users-api/overlay-')
    await until('the application is gone', 180, async () => (await applications()) === '')
    expect((await apiPods()).filter((pod) => !pod.metadata.deletionTimestamp)).toHaveLength(1)
  })
})
