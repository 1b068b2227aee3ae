"""Intervals, tables, pictures and pages."""

import json
import pathlib
import shutil
import subprocess
import unittest
from unittest import mock

from absl.testing import absltest
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import pytest

from stein_jax.runs import images
from stein_jax.runs import reporting

BATCH = {'image': np.zeros((2, 100))}  # a gap of 100 nats is no alarm


class ReportingTest(absltest.TestCase):
  def test_mean_interval_is_students(self):
    # Of 1..5: sd sqrt(2.5), t(0.975, 4) = 2.776445.
    mean, half = reporting.mean_interval(np.arange(1, 6))
    self.assertAlmostEqual(mean, 3.0)
    self.assertAlmostEqual(half, 2.776445 * 2.5**0.5 / 5**0.5, places=5)

  def test_one_run_has_no_interval(self):
    self.assertTrue(np.isnan(reporting.mean_interval(np.array([2.0]))[1]))

  def test_table(self):
    text = reporting.table([{'a': 1, 'b': 'x'}, {'a': 2}])
    self.assertEqual(text, '| a | b |\n| --- | --- |\n| 1 | x |\n| 2 |  |\n')

  def test_flat_config(self):
    flat = reporting.flat_config({'a': 1, 'b': {'c': 2, 'd': {'e': 3}}})
    self.assertEqual(flat, {'a': 1, 'b.c': 2, 'b.d.e': 3})

  def test_json_has_no_bare_words_and_comes_back(self):
    value = {
      'a': [1, float('nan'), {'b': float('-inf')}],
      'c': (np.float64('inf'), None, True, 'text'),
    }
    text = reporting.to_json(value)
    strict = json.loads(text, parse_constant=self.fail)
    expected = {
      'a': [1, 'NaN', {'b': '-Infinity'}],
      'c': ['Infinity', None, True, 'text'],
    }
    self.assertEqual(strict, expected)
    back = reporting.from_json(text)
    self.assertTrue(np.isnan(back['a'].pop(1)))
    self.assertEqual(
      back,
      {'a': [1, {'b': -np.inf}], 'c': [np.inf, None, True, 'text']},
    )
    # Older runs have the bare words.
    np.testing.assert_equal(
      reporting.from_json('[NaN, -Infinity, 2]'), [np.nan, -np.inf, 2]
    )

  def test_json_of_numbers_of_numpy_and_jax(self):
    value = {
      'a': np.float32(0.5),
      'b': jnp.array(2),
      'c': np.array([1, np.nan]),
    }
    self.assertEqual(
      reporting.to_json(value), '{"a": 0.5, "b": 2, "c": [1.0, "NaN"]}'
    )

  def test_files_have_none_either(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    reporting.write_json(folder / 'a.json', {'x': float('nan')})
    json.loads((folder / 'a.json').read_text(), parse_constant=self.fail)
    (folder / reporting.METRICS_FILE).write_text('{"step": 1, "x/y": NaN}\n')
    config = ConfigDict(dict(algorithm='a', num_steps=100, log_every=0))
    with reporting.Reporter(folder, config, BATCH, start=1) as reporter:
      reporter.scalars(2, {'x/y': float('inf')})
    last = (folder / reporting.METRICS_FILE).read_text().splitlines()[1]
    json.loads(last, parse_constant=self.fail)
    values = [line['x/y'] for line in reporting.read_metrics(folder)]
    np.testing.assert_equal(values, [np.nan, np.inf])
    reporting.write_page(folder / 'a.html', 'a', [('b', {'c': values[0]})])
    self.assertIn('<td>nan</td>', (folder / 'a.html').read_text())

  def test_page_escapes_what_it_is_given(self):
    path = pathlib.Path(self.create_tempdir().full_path) / 'page.html'
    reporting.write_page(
      path, 'a < b', [('<i>', '<script>'), ('t', [{'k': '<td>'}])]
    )
    page = path.read_text()
    self.assertIn('a &lt; b', page)
    for tag in ('<script>', '<i>', '<td><td>'):
      self.assertNotIn(tag, page)

  def test_only_pixels_stay_sharp_and_plots_stand_beside_each_other(self):
    path = pathlib.Path(self.create_tempdir().full_path) / 'page.html'
    png = images.png(np.zeros((1, 1, 3), np.uint8))
    plots = reporting.Plots({'a/b': png, 'c': png})
    reporting.write_page(
      path, 't', [('s', reporting.Pixels(png)), ('p', png), ('q', plots)]
    )
    page = path.read_text()
    self.assertEqual(page.count('class="pixels"'), 1)
    self.assertEqual(page.count('<img'), 4)
    self.assertEqual(page.count('<figcaption>'), 2)
    self.assertIn('color-scheme:light dark', page)

  def test_numbers_are_rounded_and_explained(self):
    found = reporting.explained(
      {'classifier/frechet_distance': 1.23456, 'data/pairwise_distance': 2.0}
    )
    self.assertEqual([row['value'] for row in found], ['1.235', '2'])
    self.assertEqual([row['better'] for row in found], ['lower', ''])
    self.assertTrue(all(row['means'] for row in found))

  def test_curves_and_scatter_are_pngs(self):
    plots = [
      reporting.curves(
        {'a': ([0, 1], [1, 2]), 'b': ([0, 1], [[1, 2], [3, 4]])},
        xlabel='x',
        ylabel='y',
        floor={'f': 0.0},
      ),
      reporting.scatter({'p': np.zeros((3, 2)), 'q': np.zeros((3, 1))}),
    ]
    for plot in plots:
      self.assertEqual(images.read_png(plot).shape[-1], 3)


_BROWSER = shutil.which('chromium') or shutil.which('google-chrome')


@pytest.mark.slow
@unittest.skipUnless(_BROWSER, 'no Chromium is installed')
class BrowserTest(absltest.TestCase):
  def shot(self, page, *flags):
    """Returns the pixels [h, w, 3] of a page in a window of 1,300 pixels."""
    path = page.with_suffix('.png')
    command = [_BROWSER, '--headless', '--no-sandbox', '--hide-scrollbars']
    command += ['--window-size=1300,1600', f'--screenshot={path}', *flags]
    subprocess.run([*command, str(page)], check=True, capture_output=True)
    return images.read_png(path.read_bytes())

  def has(self, shot, plot):
    """Returns whether a plot is shown pixel by pixel, by a row that crosses it."""
    (row,) = images.read_png(plot)[[len(images.read_png(plot)) // 2]]
    width = len(row)
    return any(
      np.any(np.all(shot[:, x : x + width] == row, axis=(1, 2)))
      for x in range(shot.shape[1] - width + 1)
    )

  def test_plots_are_not_scaled_and_dark_pages_are_dark(self):
    x = np.arange(20)
    series = {'a': (x, np.sin(x)), 'b': (x, np.cos(x))}
    large = reporting.curves(series, xlabel='step', ylabel='y')
    small = reporting.curves(
      {'c': (x, -x)}, xlabel='step', ylabel='', size=(4, 2.6)
    )
    page = pathlib.Path(self.create_tempdir().full_path) / 'report.html'
    plots = reporting.Plots({f'c{i}': small for i in range(3)})
    reporting.write_page(page, 'A run', [('One', large), ('Many', plots)])
    light = self.shot(page)
    self.assertEqual(light[0, 0].tolist(), [255, 255, 255])
    dark = self.shot(page, '--blink-settings=preferredColorScheme=0')
    self.assertLess(dark[0, 0].max(), 60)
    for shown in (light, dark):
      self.assertTrue(self.has(shown, large))
      self.assertTrue(self.has(shown, small))


class ReporterTest(absltest.TestCase):
  def warnings_of(self, folder, gaps, start=0):
    """Returns the warnings of a run that logs these gaps, from a step on."""
    config = ConfigDict(dict(algorithm='a', num_steps=100, log_every=0))
    with (
      mock.patch.object(reporting.logging, 'warning') as warning,
      reporting.Reporter(folder, config, BATCH, start=start) as reporter,
    ):
      for step, gap in enumerate(gaps, start + 1):
        reporter.scalars(step, {'energy/gap': gap})
    return [call.args for call in warning.mock_calls]

  def test_a_run_that_goes_on_remembers(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    self.assertEmpty(self.warnings_of(folder, [1.0] * 20))
    (args,) = self.warnings_of(folder, [100.0], start=20)
    self.assertEqual(args[1:5], ('energy/gap', 100.0, 21, 10))


class ImagesTest(absltest.TestCase):
  def test_grid_places_rows_first(self):
    shades = np.linspace(0, 1, 5)[:, None, None, None] * np.ones((5, 2, 3, 1))
    page = images.grid(shades, columns=3, pad=1)
    self.assertEqual(page.shape, (2 * 3 + 1, 3 * 4 + 1, 3))
    for i, shade in enumerate(np.round(255 * np.linspace(0, 1, 5))):
      np.testing.assert_array_equal(
        page[1 + i // 3 * 3 : 3 + i // 3 * 3, 1 + i % 3 * 4 : 4 + i % 3 * 4],
        shade,
      )

  def test_png_keeps_every_pixel(self):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    back = images.read_png(images.png(image, zoom=2))
    np.testing.assert_array_equal(back[::2, ::2], image)
    self.assertEqual(back.shape, (8, 10, 3))

  def test_what_is_no_image_is_refused(self):
    with self.assertRaisesRegex(ValueError, r'\(3, 4\)'):
      images.grid(np.zeros((3, 4)))


if __name__ == '__main__':
  absltest.main()
