/** What a release changes is what the overlay deploys. */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const ROOT = join(import.meta.dirname, '../..')
const SCRIPT = join(ROOT, '.github/scripts/set-image.ts')
const IMAGE = `1.2.3@sha256:${'0123456789abcdef'.repeat(4)}`

test('set-image.ts gives every container of the API the tag and the digest, once', () => {
  const clone = mkdtempSync(join(tmpdir(), 'release-'))
  try {
    const run = (command: string, ...args: string[]) =>
      execFileSync(command, args, {
        cwd: clone,
        encoding: 'utf8',
        env: {
          ...process.env,
          GIT_AUTHOR_NAME: 'test',
          GIT_AUTHOR_EMAIL: 'test@example.com',
          GIT_COMMITTER_NAME: 'test',
          GIT_COMMITTER_EMAIL: 'test@example.com',
        },
      }).trim()
    cpSync(join(ROOT, 'kustomize'), join(clone, 'kustomize'), { recursive: true })
    run('git', 'init', '--quiet')
    run('git', 'add', '.')
    run('git', 'commit', '--quiet', '--message=before')
    const name = run(process.execPath, SCRIPT, '--name')

    run(process.execPath, SCRIPT, IMAGE)
    const images = run('kubectl', 'kustomize', 'kustomize/overlays/gke').match(/(?<=image: )\S*users-api\S*/g)
    expect(images).toEqual([`${name}:${IMAGE}`, `${name}:${IMAGE}`, `${name}:${IMAGE}`])

    const commit = run('git', 'rev-parse', 'HEAD')
    run(process.execPath, SCRIPT, IMAGE)
    expect(run('git', 'rev-parse', 'HEAD')).toBe(commit)
  } finally {
    rmSync(clone, { recursive: true })
  }
})
