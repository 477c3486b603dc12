import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { setImage } from './set-image.ts'

const ROOT = join(import.meta.dirname, '../..')
const OVERLAY = 'kustomize/overlays/gke/kustomization.yaml'
const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`
const NEXT_DIGEST = `sha256:${'fedcba9876543210'.repeat(4)}`

let folder: string
let clone: string

/** Nothing of the developer's own git settings (hooks, signing) takes part. */
const environment = {
  ...process.env,
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_CONFIG_SYSTEM: '/dev/null',
  GIT_AUTHOR_NAME: 'test',
  GIT_AUTHOR_EMAIL: 'test@example.com',
  GIT_COMMITTER_NAME: 'test',
  GIT_COMMITTER_EMAIL: 'test@example.com',
}
const run = (command: string, args: string[], cwd: string, env: NodeJS.ProcessEnv = environment) =>
  execFileSync(command, args, { cwd, encoding: 'utf8', env, stdio: ['ignore', 'pipe', 'pipe'] }).trim()
const git = (cwd: string, ...args: string[]) => run('git', args, cwd)
const script = (args: string[], env = environment) =>
  run(process.execPath, [join(ROOT, '.github/scripts/set-image.ts'), ...args], clone, env)
const overlay = (cwd = clone) => readFileSync(join(cwd, OVERLAY), 'utf8')

/** A program of this name that comes first in PATH: what it is called with goes to `calls`. */
function stub(name: string, body: string) {
  const bin = join(folder, 'bin')
  mkdirSync(bin, { recursive: true })
  writeFileSync(join(bin, name), `#!/bin/sh\n${body}\n`, { mode: 0o755 })
  return { ...environment, PATH: `${bin}:${process.env.PATH}` }
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'set-image-'))
  const origin = join(folder, 'origin.git')
  const seed = join(folder, 'seed')
  clone = join(folder, 'clone')
  mkdirSync(join(seed, dirname(OVERLAY)), { recursive: true })
  cpSync(join(ROOT, OVERLAY), join(seed, OVERLAY))
  git(folder, 'init', '--quiet', '--bare', '--initial-branch=main', origin)
  git(folder, 'init', '--quiet', '--initial-branch=main', seed)
  git(seed, 'add', '.')
  git(seed, 'commit', '--quiet', '--message=seed')
  git(seed, 'push', '--quiet', origin, 'main')
  git(folder, 'clone', '--quiet', origin, clone)
})

afterEach(() => rmSync(folder, { recursive: true }))

describe('the image that the gke overlay names', () => {
  test('is set by tag and digest in one commit that touches nothing else', () => {
    const before = overlay()
    script([`1.2.3@${DIGEST}`])

    expect(git(clone, 'show', '--name-only', '--format=%s', 'HEAD').split(/\n+/)).toEqual([
      'deploy(gke): users-api 1.2.3',
      OVERLAY,
    ])
    expect(git(clone, 'status', '--porcelain')).toBe('')
    const images = (text: string) => text.split('\n').filter((line) => /^\s+(newTag|digest):/.test(line))
    const others = (text: string) => text.split('\n').filter((line) => !/^\s+(newTag|digest):/.test(line))
    expect(images(overlay()).map((line) => line.trim())).toEqual([`newTag: '1.2.3'`, `digest: ${DIGEST}`])
    expect(others(overlay())).toEqual(others(before))
  })

  test('stays, without a commit, when it is set a second time', () => {
    script([`1.2.3@${DIGEST}`])
    const head = git(clone, 'rev-parse', 'HEAD')
    expect(script([`1.2.3@${DIGEST}`])).toMatch('nothing to do')
    expect(git(clone, 'rev-parse', 'HEAD')).toBe(head)
  })

  test('goes back to the one before by git revert', () => {
    script([`1.2.3@${DIGEST}`])
    const before = overlay()
    script([`1.2.4@${NEXT_DIGEST}`])
    expect(overlay()).toContain(NEXT_DIGEST)
    git(clone, 'revert', '--no-edit', 'HEAD')
    expect(overlay()).toBe(before)
  })

  test.each(['', '1.2.3', DIGEST, `1.2.3@sha256:123`, `a b@${DIGEST}`, `1.2.3@${DIGEST}0`, `$(id)@${DIGEST}`])(
    'is refused as %j',
    (image) => {
      expect(() => script([image])).toThrow(/is not TAG@sha256:DIGEST/)
      expect(git(clone, 'status', '--porcelain')).toBe('')
    },
  )

  test('is refused where the overlay does not have exactly one', () => {
    expect(() => setImage('images: []\n', `1@${DIGEST}`)).toThrow(/exactly one newTag/)
    expect(() => setImage('images:\n  - name: a\n    newTag: a\n  - name: b\n    newTag: b\n', `1@${DIGEST}`)).toThrow(
      /exactly one newTag/,
    )
  })

  test('is set also where `kustomize edit` wrote the file', () => {
    const edited = `images:\n- digest: ${DIGEST}\n  name: users-api\n  newName: docker.io/you/users-api\n  newTag: 1.2.3\nresources:\n- a\n`
    expect(setImage(edited, `1.0@${NEXT_DIGEST}`)).toBe(
      `images:\n- name: users-api\n  newName: docker.io/you/users-api\n  newTag: '1.0'\n  digest: ${NEXT_DIGEST}\nresources:\n- a\n`,
    )
  })

  test('has a name, which --name prints', () => {
    expect(overlay()).toContain(`newName: ${script(['--name'])}\n`)
  })
})

describe('--of', () => {
  const version = (...args: string[]) => script([`1.2.3@${DIGEST}`, '--push', '--of', ...args])

  /** Somebody's commit on main. */
  function commit(file: string) {
    const other = join(folder, 'other')
    git(folder, 'clone', '--quiet', join(folder, 'origin.git'), other)
    writeFileSync(join(other, file), `${readFileSync(join(other, OVERLAY), 'utf8')}# changed\n`)
    git(other, 'add', '.')
    git(other, 'commit', '--quiet', '--message=theirs')
    git(other, 'push', '--quiet', 'origin', 'main')
  }

  test('deploys a version of the newest commit', () => {
    version('HEAD')
    expect(git(clone, 'log', '-1', '--format=%s', 'origin/main')).toBe('deploy(gke): users-api 1.2.3')
  })

  test('deploys it also where main has since only named another image', () => {
    const tagged = git(clone, 'rev-parse', 'HEAD')
    commit(OVERLAY)
    version(tagged)
    expect(git(clone, 'log', '--format=%s', 'origin/main').split('\n')).toEqual([
      'deploy(gke): users-api 1.2.3',
      'theirs',
      'seed',
    ])
  })

  test('deploys no version that main has moved on from', () => {
    const tagged = git(clone, 'rev-parse', 'HEAD')
    commit('source.ts')
    expect(version(tagged)).toBe('1.2.3 is published and not deployed: the branch is at another commit')
    expect(git(clone, 'log', '-1', '--format=%s', 'origin/main')).toBe('theirs')
    expect(git(clone, 'status', '--porcelain')).toBe('')
  })

  test('deploys no pre-release', () => {
    expect(script([`2.0.0-rc.1@${DIGEST}`, '--push', '--of', 'HEAD'])).toMatch(/not deployed: it is a pre-release$/)
    expect(git(clone, 'log', '-1', '--format=%s', 'origin/main')).toBe('seed')
  })

  test('leaves main its images, whose tags have a hyphen, too', () => {
    script([`sha-1a2b3c4@${DIGEST}`, '--push'])
    expect(git(clone, 'log', '-1', '--format=%s', 'origin/main')).toBe('deploy(gke): users-api sha-1a2b3c4')
  })
})

describe('--push', () => {
  test('sends the commit to the branch that is checked out', () => {
    script([`1.2.3@${DIGEST}`, '--push'])
    expect(git(clone, 'ls-remote', 'origin', 'main')).toContain(git(clone, 'rev-parse', 'HEAD'))
  })

  test('keeps what others pushed, also between its fetch and its push', () => {
    const other = join(folder, 'other')
    git(folder, 'clone', '--quiet', join(folder, 'origin.git'), other)
    // The first push of the script finds that somebody was faster: this hook is that somebody.
    const hook = `[ -e ${folder}/raced ] || { touch ${folder}/raced; cd ${other} && unset GIT_DIR && git commit -q --allow-empty -m theirs && git push -q origin main; }`
    writeFileSync(join(clone, '.git/hooks/pre-push'), `#!/bin/sh\n${hook}\n`, { mode: 0o755 })

    script([`1.2.3@${DIGEST}`, '--push'])
    expect(git(clone, 'log', '--format=%s', 'origin/main').split('\n')).toEqual([
      'deploy(gke): users-api 1.2.3',
      'theirs',
      'seed',
    ])
  })

  test('ends with an error when the branch takes no push', () => {
    writeFileSync(join(folder, 'origin.git/hooks/pre-receive'), '#!/bin/sh\nexit 1\n', { mode: 0o755 })
    expect(() => script([`1.2.3@${DIGEST}`, '--push'])).toThrow()
  })
})

describe('--pull-request', () => {
  const propose = (image: string, open: { number: number; isCrossRepository: boolean }[] = []) =>
    script(
      [image, '--pull-request'],
      stub('gh', `echo "$@" >>${folder}/calls; [ "$2" != list ] || echo '${JSON.stringify(open)}'`),
    )
  const calls = () => readFileSync(join(folder, 'calls'), 'utf8')

  test('leaves main alone and opens one from a branch of its own', () => {
    const main = git(clone, 'rev-parse', 'origin/main')
    propose(`1.2.3@${DIGEST}`)
    expect(git(clone, 'ls-remote', 'origin', 'main')).toContain(main)
    expect(git(clone, 'ls-remote', 'origin', 'deploy/image')).toContain(git(clone, 'rev-parse', 'HEAD'))
    expect(calls()).toContain('pr create --head deploy/image --base main --title deploy(gke): users-api 1.2.3')
  })

  test('replaces the image of the one that waits', () => {
    propose(`1.2.3@${DIGEST}`)
    git(clone, 'switch', '--quiet', 'main')
    propose(`1.2.4@${NEXT_DIGEST}`, [
      { number: 6, isCrossRepository: true },
      { number: 7, isCrossRepository: false },
    ])
    expect(calls()).toContain('pr list --head deploy/image --base main --json number,isCrossRepository')
    expect(calls()).toContain('pr edit 7 --title deploy(gke): users-api 1.2.4')
    expect(git(clone, 'log', '--format=%s', 'origin/deploy/image').split('\n')).toEqual([
      'deploy(gke): users-api 1.2.4',
      'seed',
    ])
  })

  test("leaves a fork's pull request from a branch of that name alone", () => {
    propose(`1.2.3@${DIGEST}`, [{ number: 6, isCrossRepository: true }])
    expect(calls()).not.toContain('pr edit')
    expect(calls()).toContain('pr create --head deploy/image')
  })
})
