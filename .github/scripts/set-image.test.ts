import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { makeRepository, OVERLAY } from './repository.ts'
import { setImage } from './set-image.ts'

const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`
const NEXT_DIGEST = `sha256:${'fedcba9876543210'.repeat(4)}`

let repository: ReturnType<typeof makeRepository>
beforeEach(() => {
  repository = makeRepository()
})
afterEach(() => repository.remove())

const git = (...args: string[]) => repository.git(...args)
const script = (...args: string[]) => repository.script('set-image.ts', ...args)
const overlay = () => readFileSync(join(repository.clone, OVERLAY), 'utf8')

describe('the image that the gke overlay names', () => {
  test('is set by tag and digest in one commit that touches nothing else', () => {
    const before = overlay()
    script(`1.2.3@${DIGEST}`)

    expect(git('show', '--name-only', '--format=%s', 'HEAD').split(/\n+/)).toEqual([
      'deploy(gke): users-api 1.2.3',
      OVERLAY,
    ])
    expect(git('status', '--porcelain')).toBe('')
    const images = (text: string) => text.split('\n').filter((line) => /^\s+(newTag|digest):/.test(line))
    const others = (text: string) => text.split('\n').filter((line) => !/^\s+(newTag|digest):/.test(line))
    expect(images(overlay()).map((line) => line.trim())).toEqual([`newTag: '1.2.3'`, `digest: ${DIGEST}`])
    expect(others(overlay())).toEqual(others(before))
  })

  test('stays, without a commit, when it is set a second time', () => {
    script(`1.2.3@${DIGEST}`)
    const head = git('rev-parse', 'HEAD')
    expect(script(`1.2.3@${DIGEST}`)).toMatch('nothing to do')
    expect(git('rev-parse', 'HEAD')).toBe(head)
  })

  test('goes back to the one before by git revert', () => {
    script(`1.2.3@${DIGEST}`)
    const before = overlay()
    script(`1.2.4@${NEXT_DIGEST}`)
    expect(overlay()).toContain(NEXT_DIGEST)
    git('revert', '--no-edit', 'HEAD')
    expect(overlay()).toBe(before)
  })

  test.each(['', '1.2.3', DIGEST, `1.2.3@sha256:123`, `a b@${DIGEST}`, `1.2.3@${DIGEST}0`, `$(id)@${DIGEST}`])(
    'is refused as %j',
    (image) => {
      expect(() => script(image)).toThrow(/is not TAG@sha256:DIGEST/)
      expect(git('status', '--porcelain')).toBe('')
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

  test('can be that of another overlay', () => {
    const other = join(repository.clone, 'kustomize/overlays/gke-other/kustomization.yaml')
    cpSync(join(repository.clone, dirname(OVERLAY)), dirname(other), { recursive: true })
    git('add', '.')
    git('commit', '--quiet', '--message=other')
    const before = overlay()
    script('--overlay', 'gke-other', `1.2.3@${DIGEST}`)
    expect(readFileSync(other, 'utf8')).toContain(DIGEST)
    expect(overlay()).toBe(before)
    expect(git('log', '-1', '--format=%s')).toBe('deploy(gke-other): users-api 1.2.3')
  })

  test('has a name, which --name prints', () => {
    expect(overlay()).toContain(`newName: ${script('--name')}\n`)
  })
})

describe('a commit', () => {
  /** A commit on main. Its image's tag names it. */
  const commitToMain = (file: string) => `sha-${repository.commit(file)}`
  const deploy = (tag: string, digest = DIGEST) => script(`${tag}@${digest}`, '--push')
  const deployed = () => /newTag: '(.*)'/.exec(git('show', `origin/main:${OVERLAY}`))?.[1]

  test('that is older than the deployed one is not deployed, as when its release is run again', () => {
    const older = commitToMain('older')
    const newer = commitToMain('newer')
    deploy(newer)
    expect(deploy(older, NEXT_DIGEST)).toBe(`${older} is not deployed: its commit is older than that of ${newer}`)
    expect(deployed()).toBe(newer)
    expect(git('status', '--porcelain')).toBe('')
  })

  test('is deployed in its turn, whatever commits wait behind it', () => {
    const [first, second] = [commitToMain('first'), commitToMain('second')]
    deploy(first)
    deploy(second)
    expect(git('log', '--format=%s', '-2', 'origin/main').split('\n')).toEqual([
      `deploy(gke): users-api ${second}`,
      `deploy(gke): users-api ${first}`,
    ])
  })

  test('that was built a second time is deployed again', () => {
    const tag = commitToMain('source')
    deploy(tag)
    deploy(tag, NEXT_DIGEST)
    expect(git('show', `origin/main:${OVERLAY}`)).toContain(NEXT_DIGEST)
  })

  test('stays rolled back after a revert, until a newer one is deployed', () => {
    const [first, second, third] = [commitToMain('first'), commitToMain('second'), commitToMain('third')]
    deploy(second)
    deploy(third, NEXT_DIGEST)
    git('revert', '--no-edit', 'HEAD')
    git('push', '--quiet', 'origin', 'main')
    expect(deployed()).toBe(second)

    expect(deploy(first, NEXT_DIGEST)).toMatch('is not deployed')
    expect(deploy(second)).toMatch('nothing to do')
    expect(deployed()).toBe(second)
    const fourth = commitToMain('fourth')
    deploy(fourth)
    expect(deployed()).toBe(fourth)
  })

  test('is compared with that of a version, too', () => {
    const older = commitToMain('older')
    commitToMain('newer')
    git('tag', 'v1.2.3')
    deploy('1.2.3')
    expect(deploy(older, NEXT_DIGEST)).toMatch(/is older than that of 1\.2\.3$/)
  })
})

describe('--push', () => {
  test('sends the commit to the branch that is checked out', () => {
    script(`1.2.3@${DIGEST}`, '--push')
    expect(git('ls-remote', 'origin', 'main')).toContain(git('rev-parse', 'HEAD'))
  })

  test('keeps what others pushed, also between its fetch and its push', () => {
    const { folder, origin } = repository
    git('clone', '--quiet', origin, join(folder, 'other'))
    // The first push of the script finds that somebody was faster: this hook is that somebody.
    const hook = `[ -e ${folder}/raced ] || { touch ${folder}/raced; cd ${folder}/other && unset GIT_DIR && git commit -q --allow-empty -m theirs && git push -q origin main; }`
    writeFileSync(join(repository.clone, '.git/hooks/pre-push'), `#!/bin/sh\n${hook}\n`, { mode: 0o755 })

    script(`1.2.3@${DIGEST}`, '--push')
    expect(git('log', '--format=%s', 'origin/main').split('\n')).toEqual([
      'deploy(gke): users-api 1.2.3',
      'theirs',
      'seed',
    ])
  })

  test('ends with an error when the branch takes no push', () => {
    writeFileSync(join(repository.origin, 'hooks/pre-receive'), '#!/bin/sh\nexit 1\n', { mode: 0o755 })
    expect(() => script(`1.2.3@${DIGEST}`, '--push')).toThrow()
  })
})

describe('--pull-request', () => {
  function propose(image: string, open: { number: number; isCrossRepository: boolean }[] = []) {
    repository.stub('gh', `[ "$2" != list ] || echo '${JSON.stringify(open)}'`)
    return script(image, '--pull-request')
  }
  const calls = () => repository.calls().join('\n')

  test('leaves main alone and opens one from a branch of its own', () => {
    const main = git('rev-parse', 'origin/main')
    propose(`1.2.3@${DIGEST}`)
    expect(git('ls-remote', 'origin', 'main')).toContain(main)
    expect(git('ls-remote', 'origin', 'deploy/gke')).toContain(git('rev-parse', 'deploy/gke'))
    expect(git('symbolic-ref', '--short', 'HEAD')).toBe('main')
    expect(calls()).toContain('pr create --head deploy/gke --base main --title deploy(gke): users-api 1.2.3')
  })

  test('promotes to production what was pushed to staging before', () => {
    cpSync(join(repository.clone, dirname(OVERLAY)), join(repository.clone, 'kustomize/overlays/gke-staging'), {
      recursive: true,
    })
    const tag = `sha-${repository.commit('source')}`
    script(`${tag}@${DIGEST}`, '--overlay', 'gke-staging', '--push')
    propose(`${tag}@${DIGEST}`)
    expect(git('log', '--format=%s', '-2', 'origin/deploy/gke').split('\n')).toEqual([
      `deploy(gke): users-api ${tag}`,
      `deploy(gke-staging): users-api ${tag}`,
    ])
    expect(git('diff', '--name-only', 'origin/main', 'origin/deploy/gke')).toBe(OVERLAY)
  })

  test('replaces the image of the one that waits', () => {
    propose(`1.2.3@${DIGEST}`)
    propose(`1.2.4@${NEXT_DIGEST}`, [
      { number: 6, isCrossRepository: true },
      { number: 7, isCrossRepository: false },
    ])
    expect(calls()).toContain('pr list --head deploy/gke --base main --json number,isCrossRepository')
    expect(calls()).toContain('pr edit 7 --title deploy(gke): users-api 1.2.4')
    expect(git('log', '--format=%s', 'origin/deploy/gke').split('\n')).toEqual(['deploy(gke): users-api 1.2.4', 'seed'])
  })

  test('does not go back to an older commit than that of the one that waits', () => {
    const older = `sha-${repository.commit('older')}`
    const newer = `sha-${repository.commit('newer')}`
    propose(`${newer}@${DIGEST}`)
    expect(propose(`${older}@${NEXT_DIGEST}`, [{ number: 7, isCrossRepository: false }])).toMatch('is not deployed')
    expect(git('log', '-1', '--format=%s', 'origin/deploy/gke')).toBe(`deploy(gke): users-api ${newer}`)
  })

  test("leaves a fork's pull request from a branch of that name alone", () => {
    propose(`1.2.3@${DIGEST}`, [{ number: 6, isCrossRepository: true }])
    expect(calls()).not.toContain('pr edit')
    expect(calls()).toContain('pr create --head deploy/gke')
  })
})
