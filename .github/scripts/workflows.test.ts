/** What actionlint and zizmor do not look at. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { DEPLOYED } from './release-version.ts'

type Concurrency = { group: string; queue?: string; 'cancel-in-progress'?: boolean }
type Step = { uses?: string; run?: string }
type Workflow = {
  on: { push?: { 'paths-ignore'?: string[] } }
  concurrency?: Concurrency
  jobs: Record<string, { concurrency?: Concurrency; steps?: Step[] }>
}

const FOLDER = join(import.meta.dirname, '../workflows')
const read = (name: string): Workflow => parse(readFileSync(join(FOLDER, name), 'utf8'))
const names = readdirSync(FOLDER)

test('deployments and versions queue, and none is lost', () => {
  const queued = [read('release.yml').jobs.deploy?.concurrency, read('version.yml').concurrency]
  // GitHub refuses a queue that cancels.
  for (const concurrency of queued) expect(concurrency).toEqual({ group: expect.any(String), queue: 'max' })
})

test('a commit that only names an image has no release, and a version looks past it', () => {
  expect(read('release.yml').on.push?.['paths-ignore']).toEqual([DEPLOYED])
})

test.each(names)('%s runs actions by their commit, and no script of its own', (name) => {
  const steps = Object.values(read(name).jobs).flatMap((job) => job.steps ?? [])
  for (const { uses, run } of steps) {
    if (uses) expect(uses).toMatch(/@[0-9a-f]{40}$/)
    // What is longer is a script with a test.
    if (run) expect(run.trim().split('\n').length).toBeLessThanOrEqual(3)
  }
})

test.each(['release.yml', 'scan.yml'])(
  '%s takes the bill of materials from a stage that the Dockerfile has',
  (name) => {
    const [, stage] = /\btarget[: ]+(\S+)/.exec(readFileSync(join(FOLDER, name), 'utf8')) ?? []
    expect(stage).toBeDefined()
    const dockerfile = readFileSync(join(FOLDER, '../../Dockerfile'), 'utf8')
    expect(dockerfile).toMatch(
      new RegExp(`^FROM scratch AS ${stage}\\nCOPY --from=build /app/dist/sbom.cdx.json /$`, 'm'),
    )
  },
)
