/**
 * Names the image that an overlay deploys, and commits that: the step between a pushed image and a synced cluster.
 *
 *   node .github/scripts/set-image.ts sha-1a2b3c4@sha256:... [--overlay gke] [--push | --pull-request]
 *   node .github/scripts/set-image.ts --name      prints the image's name, without a tag
 *
 * --push puts the commit on the branch that is checked out, however often others push meanwhile; --pull-request proposes
 * it from the branch `deploy/OVERLAY` instead (with `gh`, for a protected main). Running it again changes nothing.
 *
 * A tag says which commit the image was built from: sha-COMMIT, or a version's. An image of an older commit than the one
 * that is deployed changes nothing either: a release that is run again must not take production back.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { fail, run, start } from './run.ts'

const PUSH_ATTEMPTS = 5
const TAG_AND_DIGEST = /^(\w[\w.-]{0,127})@(sha256:[0-9a-f]{64})$/

type PullRequest = { number: number; isCrossRepository: boolean }

/** The kustomization with its one image set to `tag@digest`. Every other character, comments included, stays. */
export function setImage(kustomization: string, image: string) {
  const [, tag, digest] = TAG_AND_DIGEST.exec(image) ?? fail(`"${image}" is not TAG@sha256:DIGEST`)
  only(kustomization, 'newTag')
  return (
    kustomization
      // `kustomize edit` writes the keys in the alphabet's order, the digest first.
      .replace(/^( *- )digest:.*\n +/m, '$1')
      .replace(/^ +digest:.*\n/m, '')
      // Quoted: a tag such as 1.0 would be a number.
      .replace(/^( +)newTag:.*$/m, `$1newTag: '${tag}'\n$1digest: ${digest}`)
  )
}

/** The value of a key that the kustomization must have once, without quotes. */
function only(kustomization: string, key: string) {
  const [match, ...others] = [...kustomization.matchAll(new RegExp(`^ +${key}: *['"]?(.*?)['"]?$`, 'gm'))]
  return match?.[1] && others.length === 0 ? match[1] : fail(`the overlay must have exactly one ${key}`)
}

function main(args: string[]) {
  const {
    values,
    positionals: [image = ''],
  } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      name: { type: 'boolean' },
      push: { type: 'boolean' },
      'pull-request': { type: 'boolean' },
      overlay: { type: 'string', default: 'gke' },
    },
  })
  const root = run('git', 'rev-parse', '--show-toplevel')
  const git = (...args: string[]) => run('git', '-C', root, ...args)
  const kustomization = `kustomize/overlays/${values.overlay}/kustomization.yaml`
  const file = join(root, kustomization)
  if (values.name) return console.log(only(readFileSync(file, 'utf8'), 'newName'))
  const [tag = ''] = image.split('@')
  const subject = `deploy(${values.overlay}): users-api ${tag}`
  const proposal = `deploy/${values.overlay}`

  /** The commit that the image of this tag was built from, if the repository has it. */
  const commitOf = (tag: string) => {
    const name = tag.startsWith('sha-') ? tag.slice('sha-'.length) : `refs/tags/v${tag}`
    try {
      return git('rev-parse', '--verify', '--quiet', `${name}^{commit}`)
    } catch {
      return
    }
  }

  /** Why the image must not replace the one that this kustomization names, if there is a reason. */
  const heldBack = (current: string) => {
    if (setImage(current, image) === current) return `${kustomization} names ${image} already: nothing to do`
    const named = only(current, 'newTag')
    const [from, to] = [commitOf(named), commitOf(tag)]
    const isOlder = from && to && from !== to && git('rev-list', '--max-count=1', to, `^${from}`) === ''
    if (isOlder) return `${tag} is not deployed: its commit is older than that of ${named}`
  }

  /** Commits the image on what is checked out; otherwise returns why not. */
  const commit = () => {
    const before = readFileSync(file, 'utf8')
    const reason = heldBack(before)
    if (reason) return reason
    writeFileSync(file, setImage(before, image))
    git('commit', '--quiet', `--message=${subject}`, `--message=Image: ${image}`, '--', kustomization)
  }

  const push = () => {
    const branch = git('symbolic-ref', '--short', 'HEAD')
    for (let attempt = 1; ; attempt++) {
      git('fetch', '--quiet', 'origin', branch)
      git('merge', '--quiet', '--ff-only', 'FETCH_HEAD')
      const reason = commit()
      if (reason) return reason
      try {
        git('push', '--quiet', 'origin', `HEAD:refs/heads/${branch}`)
        return
      } catch (error) {
        if (attempt === PUSH_ATTEMPTS) throw error
        // Somebody pushed since the fetch: set the image again, on top of theirs.
        git('reset', '--quiet', '--keep', 'HEAD^')
      }
    }
  }

  const propose = () => {
    const base = git('symbolic-ref', '--short', 'HEAD')
    const listed = run('gh', ...`pr list --head ${proposal} --base ${base} --json number,isCrossRepository`.split(' '))
    // A fork's branch of the same name is listed, too.
    const open = (JSON.parse(listed) as PullRequest[]).find(({ isCrossRepository }) => !isCrossRepository)
    if (open) {
      git('fetch', '--quiet', 'origin', proposal)
      const reason = heldBack(git('show', `FETCH_HEAD:${kustomization}`))
      if (reason) return reason
    }
    git('switch', '--quiet', '--force-create', proposal)
    const reason = commit()
    git('switch', '--quiet', base)
    if (reason) return reason
    // One open proposal at most: a newer image replaces the one that waits.
    git('push', '--quiet', '--force', 'origin', `${proposal}:refs/heads/${proposal}`)
    const text = ['--title', subject, '--body', `Image: \`${image}\``]
    if (open) run('gh', 'pr', 'edit', `${open.number}`, ...text)
    else run('gh', 'pr', 'create', '--head', proposal, '--base', base, ...text)
  }

  const reason = values.push ? push() : values['pull-request'] ? propose() : commit()
  console.log(reason ?? subject)
}

if (import.meta.main) start('set-image', main)
