import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { parseConfig, settings } from '../../src/config.ts'
import { ROOT } from '../process.ts'
import {
  api,
  CONCURRENCY,
  environmentOf,
  job,
  KILL_AFTER_MS,
  MAX_INSTANCES,
  migrate,
  STREAM_CONNECTIONS,
  service,
} from './manifests.ts'
import { cloudRunJob, cloudRunService, problemsOf } from './schema.ts'

/** What PostgreSQL keeps for superusers. */
const RESERVED_CONNECTIONS = 3
/** What V8 may use beside its heap: code, buffers, stacks. */
const BESIDE_HEAP_MB = 100

describe('the schemas', () => {
  test('take the manifests', () => {
    expect(problemsOf(cloudRunService, service)).toEqual([])
    expect(problemsOf(cloudRunJob, job)).toEqual([])
  })

  test.for<[why: string, change: (copy: typeof service) => void]>([
    [
      'a number where annotations are text',
      ({ metadata }) => Object.assign(metadata.annotations, { 'run.googleapis.com/maxScale': 8 }),
    ],
    [
      'an annotation that is misspelt',
      ({ metadata }) => Object.assign(metadata.annotations, { 'run.googleapis.com/maxscale': '8' }),
    ],
    [
      "the platform's own variable",
      ({ spec }) => spec.template.spec.containers[0].env.push({ name: 'PORT', value: '8080' }),
    ],
    [
      'a variable that is a number',
      ({ spec }) => Object.assign(spec.template.spec.containers[0].env[0] ?? {}, { value: 4 }),
    ],
    ['a field of pods that Cloud Run has not', ({ spec }) => Object.assign(spec.template.spec, { initContainers: [] })],
    [
      'more requests at a time than there may be',
      ({ spec }) => Object.assign(spec.template.spec, { containerConcurrency: 1001 }),
    ],
    [
      'a liveness probe over TCP',
      ({ spec }) => Object.assign(spec.template.spec.containers[0], { livenessProbe: { tcpSocket: { port: 8080 } } }),
    ],
  ])('refuse %s', ([, change]) => {
    const copy = structuredClone(service)
    change(copy)
    expect(problemsOf(cloudRunService, copy)).not.toEqual([])
  })
})

const SECRETS = { 'users-api-password': 'of the API', 'users-owner-password': 'of the owner' }
/** A project in the place of the words that README.md says to write. */
const written = (text = '') => text.replaceAll('PROJECT', 'my-project').replaceAll('REGION', 'europe-west1')

describe('the manifests', () => {
  test('set what are settings, to values that they may have', () => {
    const known = settings.map(({ name }) => name)
    for (const container of [api, migrate]) {
      expect(known).toEqual(expect.arrayContaining(container.env.map(({ name }) => name)))
      const { address } = parseConfig(environmentOf(container, SECRETS))
      expect(written(address.host)).toBe('/cloudsql/my-project:europe-west1:users-db')
    }
  })

  test('are of one release, one database and one role, and each has its own account', () => {
    expect(migrate.image).toBe(api.image)
    const [serve, owner] = [api, migrate].map((container) => environmentOf(container, SECRETS))
    expect(owner).toMatchObject({ DB_HOST: serve?.DB_HOST, DB_NAME: serve?.DB_NAME })
    expect(owner).toMatchObject({ DB_API_USER: serve?.DB_USER, DB_API_PASSWORD: serve?.DB_PASSWORD })
    expect(owner?.DB_PASSWORD).not.toBe(serve?.DB_PASSWORD)
    const { template } = job.spec
    const instance = 'run.googleapis.com/cloudsql-instances'
    expect(`/cloudsql/${service.spec.template.metadata.annotations[instance]}`).toBe(serve?.DB_HOST)
    expect(`/cloudsql/${template.metadata.annotations[instance]}`).toBe(serve?.DB_HOST)
    expect(template.spec.template.spec.serviceAccountName).not.toBe(service.spec.template.spec.serviceAccountName)
  })

  test('stop within the time that they are given, and answer within theirs', () => {
    const config = parseConfig(environmentOf(api, SECRETS))
    expect(config.SHUTDOWN_TIMEOUT_MS).toBeLessThan(KILL_AFTER_MS)
    // What came last in the drain still has its whole deadline.
    expect(config.DRAIN_DELAY_MS + config.DEADLINE_MS).toBeLessThan(config.SHUTDOWN_TIMEOUT_MS)
    expect(config.DEADLINE_MS).toBeLessThan(1000 * service.spec.template.spec.timeoutSeconds)
    expect(config.MAX_REQUESTS).toBeGreaterThan(CONCURRENCY)
  })

  test('have more memory than the image lets V8 use', () => {
    const [, heapMB] = /--max-old-space-size=(\d+)/.exec(readFileSync(`${ROOT}Dockerfile`, 'utf8')) ?? []
    expect(Number.parseInt(api.resources.limits.memory, 10)).toBeGreaterThan(Number(heapMB) + BESIDE_HEAP_MB)
  })
})

test("the README's table is right, and has the manifest's numbers in it", () => {
  const rows = readFileSync(`${ROOT}cloudrun/README.md`, 'utf8')
    .split('\n')
    .filter((line) => /^\| (\*\*)?\d/.test(line))
    .map((line) => [...line.replaceAll(/\(.*?\)/g, '').matchAll(/\d+/g)].map(Number))
  for (const [limit = 0, instances = 0, connections = 0, ...rest] of rows) {
    const most = instances * (connections + STREAM_CONNECTIONS)
    const free = limit - RESERVED_CONNECTIONS - most
    expect(rest).toEqual([most, free, instances * CONCURRENCY])
    expect(free).toBeGreaterThan(limit / 4)
  }
  const { DB_CONNECTIONS } = parseConfig(environmentOf(api, SECRETS))
  expect(rows).toContainEqual([100, MAX_INSTANCES, DB_CONNECTIONS, 64, 33, 640])
})
