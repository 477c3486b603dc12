import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { api, MAX_INSTANCES } from '../cloudrun/manifests.ts'
import { knativeService, problemsOf } from '../cloudrun/schema.ts'
import { ROOT } from '../process.ts'

test("cloudrun renders for Knative without Google's own fields, and two revisions have no more instances than one service there", () => {
  const rendered = parse(execFileSync('kubectl', ['kustomize', `${ROOT}cloudrun`], { encoding: 'utf8' }))
  expect(problemsOf(knativeService, rendered)).toEqual([])
  const { metadata, spec } = rendered.spec.template
  expect(spec.containers[0].env).toEqual(api.env)
  expect(2 * Number(metadata.annotations['autoscaling.knative.dev/maxScale'])).toBe(MAX_INSTANCES)
})
